/* The boot config's parser. Pure: a buffer in, pointers into it out. */
#include "config.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#define MAGIC "fcbuild-boot "
#define VERSION "1"

enum { KEY_MAX = 31 };

/* (uid_t)-1 means "leave as it is" to the kernel, so it is nobody's number. */
#define ID_MAX (UINT32_MAX - 1)
#define SIGNAL_MAX 64
#define GRACE_MS_MAX INT32_MAX

enum key {
	KEY_ARGV,
	KEY_ENV,
	KEY_WORKDIR,
	KEY_UID,
	KEY_GID,
	KEY_GROUP,
	KEY_HOSTNAME,
	KEY_STOP_SIGNAL,
	KEY_STOP_GRACE_MS,
	KEYS
};

static const struct {
	const char *name;
	bool least_once, most_once;
} keys[KEYS] = {
	[KEY_ARGV] = {"argv", true, false},
	[KEY_ENV] = {"env", false, false},
	[KEY_WORKDIR] = {"workdir", true, true},
	[KEY_UID] = {"uid", true, true},
	[KEY_GID] = {"gid", true, true},
	[KEY_GROUP] = {"group", false, false},
	[KEY_HOSTNAME] = {"hostname", true, true},
	[KEY_STOP_SIGNAL] = {"stop-signal", true, true},
	[KEY_STOP_GRACE_MS] = {"stop-grace-ms", true, true},
};

/* The document, how far it has been read, and where a complaint goes. */
struct reader {
	char *text;
	size_t length, at;
	unsigned record;
	char *error;
	size_t error_size;
};

struct record {
	const char *key;
	size_t key_length;
	char *value; /* NUL-terminated */
	size_t length;
};

__attribute__((format(printf, 2, 3))) static int wrong(struct reader *reader, const char *format, ...)
{
	int used = 0;
	if (reader->record > 0)
		used = snprintf(reader->error, reader->error_size, "record %u: ", reader->record);
	if (used < 0 || (size_t)used >= reader->error_size)
		used = 0;
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(reader->error + used, reader->error_size - (size_t)used, format, arguments);
	va_end(arguments);
	return -1;
}

int decimal_parse(const char *text, size_t length, uint64_t least, uint64_t most, uint64_t *number)
{
	if (length < 1 || length > 19 || (text[0] == '0' && length > 1))
		return -1;
	uint64_t value = 0;
	for (size_t i = 0; i < length; i++) {
		if (text[i] < '0' || text[i] > '9')
			return -1;
		value = value * 10 + (uint64_t)(text[i] - '0');
	}
	if (value < least || value > most)
		return -1;
	*number = value;
	return 0;
}

static int read_header(struct reader *reader)
{
	const size_t magic = strlen(MAGIC);
	if (reader->length < magic || memcmp(reader->text, MAGIC, magic) != 0)
		return wrong(reader, "this is not a boot config");
	const char *version = reader->text + magic;
	const char *newline = memchr(version, '\n', reader->length - magic);
	if (newline == NULL)
		return wrong(reader, "the header line has no end");
	if ((size_t)(newline - version) != strlen(VERSION) || memcmp(version, VERSION, strlen(VERSION)) != 0)
		return wrong(reader, "its version is not " VERSION);
	reader->at = (size_t)(newline - reader->text) + 1;
	return 0;
}

/* Read `<key> <length>\n<value>\n` at the reader's place. */
static int read_record(struct reader *reader, struct record *record)
{
	char *line = reader->text + reader->at;
	size_t left = reader->length - reader->at;
	reader->record++;

	size_t key = 0;
	while (key < left && key <= KEY_MAX && ((line[key] >= 'a' && line[key] <= 'z') || line[key] == '-'))
		key++;
	if (key == left)
		return wrong(reader, "the document ends without an end record");
	if (key < 1 || key > KEY_MAX || line[key] != ' ')
		return wrong(reader, "it does not start with a key and a space");

	const char *digits = line + key + 1;
	const char *newline = memchr(digits, '\n', left - key - 1);
	uint64_t length = 0;
	if (newline == NULL ||
	    decimal_parse(digits, (size_t)(newline - digits), 0, CONFIG_BYTES_MAX, &length) != 0)
		return wrong(reader, "%.*s has no valid length", (int)key, line);

	size_t value = (size_t)(newline - line) + 1;
	if (left - value < length + 1)
		return wrong(reader, "%.*s is longer than the document", (int)key, line);
	if (line[value + length] != '\n')
		return wrong(reader, "%.*s does not end where its length says", (int)key, line);
	if (memchr(line + value, '\0', length) != NULL)
		return wrong(reader, "%.*s holds a NUL byte", (int)key, line);
	line[value + length] = '\0';

	*record = (struct record){line, key, line + value, (size_t)length};
	reader->at += value + length + 1;
	return 0;
}

static int read_number(struct reader *reader, const struct record *record, uint64_t least, uint64_t most,
		       uint64_t *number)
{
	if (decimal_parse(record->value, record->length, least, most, number) == 0)
		return 0;
	return wrong(reader, "%.*s is not a number from %llu to %llu", (int)record->key_length, record->key,
		     (unsigned long long)least, (unsigned long long)most);
}

/* The name goes into /etc/hosts, so it must not be able to add a line or a field there. */
static bool is_hostname(const char *name, size_t length)
{
	static const char allowed[] = "abcdefghijklmnopqrstuvwxyz"
				      "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
				      "0123456789.-_";
	return length >= 1 && length <= 63 && strspn(name, allowed) == length;
}

static int take(struct reader *reader, enum key key, const struct record *record, struct config *config)
{
	uint64_t number = 0;
	switch (key) {
	case KEY_ARGV:
		config->argv[config->argc++] = record->value;
		return 0;
	case KEY_ENV: {
		const char *equals = memchr(record->value, '=', record->length);
		if (equals == NULL || equals == record->value)
			return wrong(reader, "env is not NAME=value");
		config->env[config->envc++] = record->value;
		return 0;
	}
	case KEY_WORKDIR:
		if (record->value[0] != '/')
			return wrong(reader, "workdir is not an absolute path");
		config->workdir = record->value;
		return 0;
	case KEY_UID:
		if (read_number(reader, record, 0, ID_MAX, &number) != 0)
			return -1;
		config->uid = (uid_t)number;
		return 0;
	case KEY_GID:
		if (read_number(reader, record, 0, ID_MAX, &number) != 0)
			return -1;
		config->gid = (gid_t)number;
		return 0;
	case KEY_GROUP:
		if (read_number(reader, record, 0, ID_MAX, &number) != 0)
			return -1;
		config->groups[config->groupc++] = (gid_t)number;
		return 0;
	case KEY_HOSTNAME:
		if (!is_hostname(record->value, record->length))
			return wrong(reader, "hostname is not 1 to 63 of a-z A-Z 0-9 . - _");
		config->hostname = record->value;
		return 0;
	case KEY_STOP_SIGNAL:
		if (read_number(reader, record, 1, SIGNAL_MAX, &number) != 0)
			return -1;
		config->stop_signal = (int)number;
		return 0;
	case KEY_STOP_GRACE_MS:
		if (read_number(reader, record, 0, GRACE_MS_MAX, &number) != 0)
			return -1;
		config->stop_grace_ms = (uint32_t)number;
		return 0;
	case KEYS:
		break;
	}
	return wrong(reader, "no such key");
}

static bool key_is(const struct record *record, const char *name)
{
	return strlen(name) == record->key_length && memcmp(record->key, name, record->key_length) == 0;
}

int config_parse(char *text, size_t length, struct config *config, char *error, size_t error_size)
{
	struct reader reader = {.text = text, .length = length, .error = error, .error_size = error_size};
	unsigned seen[KEYS] = {0};

	memset(config, 0, sizeof *config);
	if (length > CONFIG_BYTES_MAX)
		return wrong(&reader, "it is larger than %d bytes", CONFIG_BYTES_MAX);
	if (read_header(&reader) != 0)
		return -1;

	struct record record;
	for (;;) {
		if (read_record(&reader, &record) != 0)
			return -1;
		if (key_is(&record, "end"))
			break;
		if (reader.record > CONFIG_RECORDS_MAX)
			return wrong(&reader, "there are more than %d records", CONFIG_RECORDS_MAX);
		size_t key = 0;
		while (key < KEYS && !key_is(&record, keys[key].name))
			key++;
		if (key == KEYS)
			return wrong(&reader, "unknown key %.*s", (int)record.key_length, record.key);
		if (seen[key]++ > 0 && keys[key].most_once)
			return wrong(&reader, "%s is there twice", keys[key].name);
		if (take(&reader, (enum key)key, &record, config) != 0)
			return -1;
	}
	if (record.length != 0)
		return wrong(&reader, "the end record has a value");
	if (reader.at != length)
		return wrong(&reader, "there are bytes behind the end record");
	reader.record = 0;
	for (size_t key = 0; key < KEYS; key++)
		if (keys[key].least_once && seen[key] == 0)
			return wrong(&reader, "%s is missing", keys[key].name);
	return 0;
}
