CC=/usr/src/musl/bin/cc CFLAGS=-Os ./configure --host=i386-linux-musl --enable-static --enable-bundled-libtom \
    --disable-harden --disable-zlib --disable-lastlog --disable-utmp --disable-utmpx --disable-wtmp --disable-wtmpx \
    --disable-loginfunc --disable-pututline --disable-pututxline
make -j"$JOBS" PROGRAMS=dropbear AR=ar RANLIB=ranlib
strip -s -o /usr/src/made/dropbear dropbear
