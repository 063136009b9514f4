# gcc 3.4.6 for i386, C only. The kernel's Documentation/using-newer-gcc.txt (2.4) names 3.4 as the newest.
# Whoever runs it may move it: it looks for its parts from where it is.

# Debian's tarball is without the documentation.
sed -i \
    -e 's/^BUILD_INFO = .*/BUILD_INFO =/' \
    -e 's/^GENERATED_MANPAGES = .*/GENERATED_MANPAGES =/' \
    -e 's/ install-man install-info / /' gcc/Makefile.in
# What it says of signals needs a C library, which a kernel does without.
sed -i 's/^#ifdef IN_LIBGCC2$/#if defined (IN_LIBGCC2) \&\& !defined (inhibit_libc)/' gcc/config/i386/linux.h

wrap() {  # FILE COMMAND...
    file=$1
    shift
    printf '#!/bin/sh\nexec %s "$@"\n' "$*" >"$file"
    chmod 755 "$file"
}

# The machine's own assembler and linker do i386 too, if told. gcc looks for them beside itself first.
cd /usr/src/build
mkdir gcc
wrap gcc/as /usr/bin/as --32
wrap gcc/ld /usr/bin/ld -m elf_i386

# It is C of 1989. configure takes the flags from the environment only, make from its arguments only.
CFLAGS='-O2 -std=gnu89 -fcommon -fgnu89-inline -w'
export CFLAGS
../source/configure --prefix=/gcc --target=i686-linux-gnu --enable-languages=c --without-headers --with-newlib \
    --disable-shared --disable-threads --disable-nls --disable-multilib
build() {
    make "$@" MAKEINFO=true CFLAGS="$CFLAGS" LIBGCC2_DEBUG_CFLAGS= AR_FOR_TARGET='ar D' RANLIB_FOR_TARGET='ranlib -D' \
        NM_FOR_TARGET=nm
}
build -j"$JOBS" all-gcc
build install-gcc DESTDIR=/usr/src/build/installed

cd installed/gcc
rm -rf include info man share libexec/gcc/*/*/install-tools lib/gcc/*/*/install-tools \
    bin/*-gccbug bin/*-gcov bin/*-gcc-3.4.6 bin/*-i686-linux-gnu-gcc
strip bin/* libexec/gcc/*/*/cc1 libexec/gcc/*/*/collect2
mkdir -p i686-linux-gnu/bin
for program in ar as ld nm objcopy objdump ranlib readelf size strip; do
    case $program in
        as) wrap i686-linux-gnu/bin/as /usr/bin/as --32 ;;
        ld) wrap i686-linux-gnu/bin/ld /usr/bin/ld -m elf_i386 ;;
        *) ln -s /usr/bin/$program i686-linux-gnu/bin/$program ;;
    esac
    ln -s ../i686-linux-gnu/bin/$program bin/i686-linux-gnu-$program
done
mv ./* /usr/src/made
