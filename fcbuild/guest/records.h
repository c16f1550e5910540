/* The format of the boot config and the instance document (BOOT_CONTRACT.md, section 2). */
#ifndef FCBUILD_RECORDS_H
#define FCBUILD_RECORDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { RECORDS_MAX = 4096 }; /* in one document; the end record is not counted */

/* What tells one kind of document from the other. */
struct format {
	const char *name;   /* for people */
	const char *magic;  /* the header line up to its version */
	size_t bytes_max;   /* of the whole document */
	bool padded;        /* zeros may follow the end record */
};

/* A document, how far it has been read, and where a complaint goes. */
struct records {
	const struct format *format;
	char *text;
	size_t length, at;
	unsigned record;
	char *error;
	size_t error_size;
};

struct record {
	const char *key; /* not NUL-terminated */
	size_t key_length;
	char *value; /* NUL-terminated */
	size_t length;
};

/*
 * Start to read the document of `length` bytes at `text`. Returns 0, or -1 with one line in `error`;
 * the same for the functions below.
 */
int records_open(struct records *records, const struct format *format, char *text, size_t length, char *error,
		 size_t error_size);

/*
 * Read the next record, whose strings point into the document: the byte behind the value becomes its
 * NUL. Returns 1, or 0 when the end record was read and the document ends there.
 */
int records_next(struct records *records, struct record *record);

/* Complain about the last record that was read, or about the document before the first. Returns -1. */
__attribute__((format(printf, 2, 3))) int records_wrong(struct records *records, const char *format, ...);

/* Whether the record's key is `name`. */
bool record_is(const struct record *record, const char *name);

/* Whether the record's value is free of NUL bytes, so that it is the string it looks like. */
bool record_is_text(const struct record *record);

#endif
