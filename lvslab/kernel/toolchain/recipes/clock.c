/* clock SECONDS: set the clock to SECONDS since 1970. Linux 2.4 has no clock_settime(2), by which C libraries set it.
 * Ends with errno. */
#include <errno.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	long seconds = argc == 2 ? atol(argv[1]) : 0;

	if (seconds <= 0)
		return EINVAL;
	return syscall(SYS_stime, &seconds) ? errno : 0;
}
