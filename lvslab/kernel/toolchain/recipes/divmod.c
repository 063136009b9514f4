/*
 * Quotient and rest of 64-bit numbers in one call, which compilers since gcc 7 emit for i386. libgcc of gcc 3.4.6 has
 * the one for unsigned numbers only.
 */
unsigned long long __udivmoddi4(unsigned long long number, unsigned long long by, unsigned long long *rest);

static unsigned long long size(long long number)
{
	return number < 0 ? -(unsigned long long)number : (unsigned long long)number;
}

long long __divmoddi4(long long number, long long by, long long *rest)
{
	unsigned long long left;
	unsigned long long times = __udivmoddi4(size(number), size(by), &left);

	*rest = number < 0 ? -left : left;
	return (number < 0) != (by < 0) ? -times : times;
}
