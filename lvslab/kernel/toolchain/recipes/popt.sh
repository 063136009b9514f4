CC=/usr/src/musl/bin/cc CFLAGS=-Os ./configure --host=i386-linux-musl --prefix=/usr --enable-static --disable-shared \
    --disable-nls
make -j"$JOBS" -C src AR=ar RANLIB=ranlib
cp src/popt.h src/.libs/libpopt.a /usr/src/made
