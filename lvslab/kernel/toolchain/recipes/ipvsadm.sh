# Without netlink: it speaks to IPVS through socket options, which every kernel has. ipvs_2_4.c is put between.
CC=/usr/src/musl/bin/cc

# Else it would warn with each command that IPVS 1.0 is older than 1.1.4.
grep -q '^#define MINIMUM_IPVS_VERSION_MINOR' libipvs/libipvs.h
sed -i 's/^\(#define MINIMUM_IPVS_VERSION_MINOR\s\+\).*/\10/' libipvs/libipvs.h

# Without netlink, 1.26 refuses every service: it looks whether there is an array, not what is in it. As in 1.27:
sed -i -e 's/if (s->pe_name)/if (s->pe_name[0])/' -e 's/svc = malloc(len)/svc = calloc(1, len)/' libipvs/libipvs.c
# 1.24 wants this header of a kernel that was patched with IPVS. What it uses of it has a place of its own today.
mkdir /usr/src/build/net
echo '#include <linux/ip_vs.h>' >/usr/src/build/net/ip_vs.h

find . -name '*.[ao]' -delete  # of a tree that was built in
# musl has u_int16_t and its like in one header only, and not for everybody.
set -- HAVE_NL=0 ARCH=i386
set -- "$@" CC="$CC -Os -D_GNU_SOURCE -include sys/types.h -I/usr/src/popt -idirafter /usr/src/build"
make -C libipvs "$@" libipvs.a
make "$@" POPT_DEFINE=-DHAVE_POPT ipvsadm.o config_stream.o dynamic_array.o
$CC -Os -c /usr/src/recipes/ipvs_2_4.c -o ipvs_2_4.o
$CC -Wl,--wrap=getsockopt -Wl,--wrap=setsockopt -o ipvsadm ipvsadm.o config_stream.o dynamic_array.o ipvs_2_4.o \
    libipvs/libipvs.a /usr/src/popt/libpopt.a
strip -s -o /usr/src/made/ipvsadm ipvsadm
