/* Two system calls of Linux 2.4 for its modules, which musl does not have: numbers as in its asm-i386/unistd.h. */
#include <stddef.h>
#include <unistd.h>

int query_module(const char *name, int which, void *buffer, size_t size, size_t *used)
{
	return syscall(167, name, which, buffer, size, used);
}

unsigned long create_module(const char *name, size_t size)
{
	return syscall(127, name, size);
}
