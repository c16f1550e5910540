/* The guest's clock, and deadlines on it. */
#include "clock.h"

#include <limits.h>
#include <time.h>

#define NS_PER_MS 1000000u

uint64_t clock_now(void)
{
	struct timespec now = {0};
	clock_gettime(CLOCK_BOOTTIME, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

uint64_t clock_deadline(uint64_t ms)
{
	return clock_now() + ms * NS_PER_MS;
}

int clock_left(uint64_t deadline)
{
	uint64_t now = clock_now();
	if (now >= deadline)
		return 0;
	uint64_t ms = (deadline - now + NS_PER_MS - 1) / NS_PER_MS;
	return ms > INT_MAX ? INT_MAX : (int)ms;
}
