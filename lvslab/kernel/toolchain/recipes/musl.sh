# musl, static, for i386, and `cc`, which compiles with it. Where the machine's gcc comes without libraries for i386,
# libgcc is that of gcc 3.4.6. Programs made with it run on Linux 2.4: musl does without what that lacks.

flags='-m32 -march=i686 -mtune=generic -fno-pie -fno-stack-protector -fcf-protection=none'
flags="$flags -fno-asynchronous-unwind-tables"
place=/usr/src/musl

mkdir /usr/src/made/lib /usr/src/made/include /usr/src/made/bin
libgcc=/usr/src/made/lib/libgcc.a
cp /usr/src/gcc/lib/gcc/i686-linux-gnu/3.4.6/libgcc.a $libgcc
# shellcheck disable=SC2086  # a list of words
gcc $flags -O2 -c /usr/src/recipes/divmod.c -o /usr/src/build/divmod.o
ar rD $libgcc /usr/src/build/divmod.o

cd /usr/src/build
CC="gcc $flags" CFLAGS=-Os LIBCC=$libgcc ../source/configure --target=i386 --prefix=/usr/src/made --disable-shared \
    --disable-wrapper
make -j"$JOBS" AR='ar D' RANLIB='ranlib -D'
make install AR='ar D' RANLIB='ranlib -D'

# The kernel's own headers are for i386 too.
for name in linux asm-generic mtd; do ln -s /usr/include/$name /usr/src/made/include/$name; done
ln -s "/usr/include/$(gcc -print-multiarch)/asm" /usr/src/made/include/asm

cat >/usr/src/made/specs <<EOF
%rename cpp_options old_cpp_options

*cpp_options:
-nostdinc -isystem $place/include -isystem include%s %(old_cpp_options)

*cc1:
%(cc1_cpu) -nostdinc -isystem $place/include -isystem include%s

*link_libgcc:
-L$place/lib

*libgcc:
$place/lib/libgcc.a

*lib:
-lc

*startfile:
$place/lib/crt1.o $place/lib/crti.o

*endfile:
$place/lib/crtn.o

*link:
-m elf_i386 -static --build-id=none

*esp_link:


*esp_options:


*esp_cpp_options:


EOF
printf '#!/bin/sh\nexec gcc %s -specs=%s/specs -static -no-pie "$@"\n' "$flags" $place >/usr/src/made/bin/cc
chmod 755 /usr/src/made/bin/cc
