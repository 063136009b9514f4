CC=/usr/src/musl/bin/cc
$CC -Os -c /usr/src/recipes/modules_2_4.c -o /usr/src/build/modules_2_4.o
# A library, since busybox gives its flags for the linker to each ld -r too, which would take an object in every time.
ar rD /usr/src/build/libmodules_2_4.a /usr/src/build/modules_2_4.o

asked=/usr/src/recipes/busybox.config
cp $asked .config
# An empty answer is the default.
yes '' | make oldconfig
# kconfig drops what it cannot have without a word.
grep -e '^CONFIG_' -e '^# CONFIG_.* is not set$' $asked | while IFS= read -r line; do
    grep -qxF -e "$line" .config || {
        echo "error: busybox does not take $line"
        exit 1
    }
done
make -j"$JOBS" CC=$CC SKIP_STRIP=y busybox
strip -s -o /usr/src/made/busybox busybox
cp .config /usr/src/made/config

# What a guest needs and busybox does not have.
for name in clock linked reseed; do $CC -Os -s /usr/src/recipes/$name.c -o /usr/src/made/$name; done
