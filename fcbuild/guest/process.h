/* PID 1's children: what they must not inherit from it, and how they are ended. */
#ifndef FCBUILD_PROCESS_H
#define FCBUILD_PROCESS_H

#include <sys/types.h>

/* Make PID 1 the last one that the kernel kills when memory runs out. */
void process_never_oom(void);

/* Undo that, in a child that is still root. */
void process_normal_oom(void);

/* Close every descriptor from 3 on but `fd`. */
void process_keep_only(int fd);

/* Have exec close every descriptor from 3 on. */
void process_close_on_exec(void);

/* Unblock all signals and give each its default disposition. */
void process_default_signals(void);

/*
 * Kill every process of the session that `leader` leads. It must be a child that has not been waited
 * for, as its number means another session afterwards.
 */
void process_kill_session(pid_t leader);

#endif
