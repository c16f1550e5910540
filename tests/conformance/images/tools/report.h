/* What the program sees; each function writes one part of the document. */
#pragma once

void report_program(int argc, char **argv, char **env);
void report_process(void);
void report_limits(void);
void report_descriptors(void);
void report_mounts(void);
void report_devices(void);
void report_files(void);
void report_network(void);
void report_works(void);
void report_trees(char *roots); /* separated by commas; written over */
void report_orphan(void);
