/* Writes one JSON document to standard output, key by key. */
#pragma once

#include <stddef.h>

/* A key is NULL inside of a list. */
void json_open(const char *key, char bracket); /* '{' or '[' */
void json_close(void);
void json_text(const char *key, const char *text);
void json_bytes(const char *key, const void *bytes, size_t length);
void json_number(const char *key, long long number);
void json_bool(const char *key, int value);
__attribute__((format(printf, 2, 3))) void json_format(const char *key, const char *format, ...);
