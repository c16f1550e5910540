/* What PID 1's children must not inherit from it. */
#ifndef FCBUILD_PROCESS_H
#define FCBUILD_PROCESS_H

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

#endif
