/* reseed SEED >/dev/urandom: make the kernel's random generator start anew (why: lvslab/guest/reseed.py).
 * SEED has 64 characters. Ends with errno: EINVAL (22) where the kernel has no RNDRESEEDCRNG, before 4.17. */
#include <errno.h>
#include <linux/random.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	struct { int entropy_count, buf_size; char buf[64]; } pool = { 256, 64, "" };

	if (argc != 2 || strlen(argv[1]) != sizeof pool.buf)
		return E2BIG;
	memcpy(pool.buf, argv[1], sizeof pool.buf);
	if (ioctl(STDOUT_FILENO, RNDADDENTROPY, &pool) || ioctl(STDOUT_FILENO, RNDRESEEDCRNG))
		return errno;
	return 0;
}
