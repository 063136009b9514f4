# Its socket options are still those of 2.4.
CC=/usr/src/musl/bin/cc CFLAGS=-Os ./configure --host=i386-linux-musl --prefix=/usr --enable-static --disable-shared \
    --disable-nftables --disable-ipv6 --disable-connlabel --disable-devel --disable-bpf-compiler --disable-nfsynproxy
make -j"$JOBS" AR=ar RANLIB=ranlib
strip -s -o /usr/src/made/xtables-legacy-multi iptables/xtables-legacy-multi
