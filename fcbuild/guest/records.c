/* The reader of the record format. Pure: a buffer in, pointers into it out. */
#include "records.h"

#include "values.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define VERSION "2"

enum { KEY_MAX = 31 };

int records_wrong(struct records *records, const char *format, ...)
{
	int used = 0;
	if (records->record > 0)
		used = snprintf(records->error, records->error_size, "record %u: ", records->record);
	if (used < 0 || (size_t)used >= records->error_size)
		used = 0;
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(records->error + used, records->error_size - (size_t)used, format, arguments);
	va_end(arguments);
	return -1;
}

bool record_is(const struct record *record, const char *name)
{
	return strlen(name) == record->key_length && memcmp(record->key, name, record->key_length) == 0;
}

bool record_is_text(const struct record *record)
{
	return memchr(record->value, '\0', record->length) == NULL;
}

static int read_header(struct records *records)
{
	const size_t magic = strlen(records->format->magic);
	if (records->length < magic || memcmp(records->text, records->format->magic, magic) != 0)
		return records_wrong(records, "this is not %s", records->format->name);
	const char *version = records->text + magic;
	const char *newline = memchr(version, '\n', records->length - magic);
	if (newline == NULL)
		return records_wrong(records, "the header line has no end");
	if ((size_t)(newline - version) != strlen(VERSION) || memcmp(version, VERSION, strlen(VERSION)) != 0)
		return records_wrong(records, "its version is not " VERSION);
	records->at = (size_t)(newline - records->text) + 1;
	return 0;
}

int records_open(struct records *records, const struct format *format, char *text, size_t length, char *error,
		 size_t error_size)
{
	*records = (struct records){
		.format = format, .text = text, .length = length, .error = error, .error_size = error_size};
	if (length > format->bytes_max)
		return records_wrong(records, "it is larger than %zu bytes", format->bytes_max);
	return read_header(records);
}

/* Read `<key> <length>\n<value>\n` at the reader's place. */
static int read_record(struct records *records, struct record *record)
{
	char *line = records->text + records->at;
	size_t left = records->length - records->at;
	records->record++;

	size_t key = 0;
	while (key < left && key <= KEY_MAX && ((line[key] >= 'a' && line[key] <= 'z') || line[key] == '-'))
		key++;
	if (key == left)
		return records_wrong(records, "the document ends without an end record");
	if (key < 1 || key > KEY_MAX || line[key] != ' ')
		return records_wrong(records, "it does not start with a key and a space");

	const char *digits = line + key + 1;
	const char *newline = memchr(digits, '\n', left - key - 1);
	uint64_t length = 0;
	if (newline == NULL ||
	    decimal_parse(digits, (size_t)(newline - digits), 0, records->format->bytes_max, &length) != 0)
		return records_wrong(records, "%.*s has no valid length", (int)key, line);

	size_t value = (size_t)(newline - line) + 1;
	if (left - value < length + 1)
		return records_wrong(records, "%.*s is longer than the document", (int)key, line);
	if (line[value + length] != '\n')
		return records_wrong(records, "%.*s does not end where its length says", (int)key, line);
	line[value + length] = '\0';

	*record = (struct record){line, key, line + value, (size_t)length};
	records->at += value + length + 1;
	return 0;
}

static bool only_padding_left(const struct records *records)
{
	for (size_t at = records->at; at < records->length; at++)
		if (!records->format->padded || records->text[at] != '\0')
			return false;
	return true;
}

int records_next(struct records *records, struct record *record)
{
	if (read_record(records, record) != 0)
		return -1;
	if (!record_is(record, "end")) {
		if (records->record > RECORDS_MAX)
			return records_wrong(records, "there are more than %d records", RECORDS_MAX);
		return 1;
	}
	if (record->length != 0)
		return records_wrong(records, "the end record has a value");
	if (!only_padding_left(records))
		return records_wrong(records, "there are bytes behind the end record");
	/* What is complained about from here on is missing, so it is in no record. */
	records->record = 0;
	return 0;
}
