/* What the kernel is told and asked about processes: PID 1 itself, what its children inherit, their end. */
#ifndef FCBUILD_PROCESS_H
#define FCBUILD_PROCESS_H

#include <stdint.h>
#include <sys/types.h>

/*
 * Make this process the last one that the kernel kills when memory runs out. Process 1 it spares by
 * itself (oom_unkillable_task() in mm/oom_kill.c).
 */
void process_never_oom(void);

/* Undo that, where it was done, in a child that is still root. */
void process_normal_oom(void);

/* How many processes the kernel has killed for want of memory since it started; 0 when it does not say. */
uint64_t process_oom_kills(void);

/* Close every descriptor from 3 on but `fd`. */
void process_keep_only(int fd);

/* Have exec close every descriptor from 3 on. */
void process_close_on_exec(void);

/*
 * Unblock all signals. Their dispositions are the default ones: the kernel starts process 1 with them,
 * and none is ignored here, which is all that an exec would hand on.
 */
void process_unblock_signals(void);

/*
 * Kill every process of the session that `leader` leads. It must be a child that has not been waited
 * for, as its number means another session afterwards.
 */
void process_kill_session(pid_t leader);

#endif
