# With the distribution's libraries, as its own ipvsadm is: they are in the guest.

# 1.24 wants this header of a kernel that was patched with IPVS. What it uses of it has a place of its own today.
mkdir /usr/src/build/net
echo '#include <linux/ip_vs.h>' >/usr/src/build/net/ip_vs.h

find . -name '*.[ao]' -delete  # of a tree that was built in
rm -f ipvsadm
cc='gcc -O2 -idirafter /usr/src/build'
set -- POPT_LIB=-lpopt POPT_DEFINE=-DHAVE_POPT
if grep -q nl_handle_alloc libipvs/libipvs.c && ! grep -q nl_socket_alloc libipvs/libipvs.c; then
    # 1.25 and 1.26 were written for libnl 1, which is gone. What they use of it is in libnl 3, under other names.
    cc="$cc -Dnl_handle=nl_sock -Dnl_handle_alloc=nl_socket_alloc -Dnl_handle_destroy=nl_socket_free"
    cc="$cc $(pkg-config --cflags libnl-genl-3.0)"
    set -- "$@" LIBS="-lpopt $(pkg-config --libs libnl-genl-3.0)"
fi
make -C libipvs CC="$cc" "$@" libipvs.a
make CC="$cc" "$@" ipvsadm
strip -s -o /usr/src/made/ipvsadm ipvsadm
