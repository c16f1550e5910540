/* The guest's clock, and deadlines on it. */
#ifndef FCBUILD_CLOCK_H
#define FCBUILD_CLOCK_H

#include <stdint.h>

/* Nanoseconds of CLOCK_BOOTTIME: the `t` of every event, and the scale of every deadline. */
uint64_t clock_now(void);

/* The point in time that is `ms` milliseconds from now. */
uint64_t clock_deadline(uint64_t ms);

/* Milliseconds left until `deadline`, rounded up, for poll(2); 0 when it has passed. */
int clock_left(uint64_t deadline);

#endif
