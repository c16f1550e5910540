#include "config.h"

#include <string.h>

static const char HEADER[] = "fcbuild-agent 1\n";

struct reader {
	char *at, *end;
};

/* Read `<key> <length>\n<bytes>\n` and end the value with a NUL in place of its newline. */
static const char *next_record(struct reader *in, const char **key, char **value, size_t *length)
{
	char *start = in->at;
	while (in->at < in->end && ((*in->at >= 'a' && *in->at <= 'z') || *in->at == '-'))
		in->at++;
	size_t key_length = (size_t)(in->at - start);
	if (key_length < 1 || key_length > 31 || in->at == in->end || *in->at != ' ')
		return "a key is malformed";
	*in->at++ = '\0';
	*key = start;

	char *digits = in->at;
	size_t bytes = 0;
	while (in->at < in->end && *in->at >= '0' && *in->at <= '9') {
		bytes = bytes * 10 + (size_t)(*in->at++ - '0');
		if (bytes > CONFIG_BYTES)
			return "a length is too large";
	}
	if (in->at == digits || (*digits == '0' && in->at - digits > 1))
		return "a length is malformed";
	if (in->at == in->end || *in->at++ != '\n')
		return "a length does not end its line";
	if ((size_t)(in->end - in->at) < bytes + 1 || in->at[bytes] != '\n')
		return "a value does not have its length";
	if (memchr(in->at, '\0', bytes) != NULL)
		return "a value holds a NUL";
	in->at[bytes] = '\0';
	*value = in->at;
	*length = bytes;
	in->at += bytes + 1;
	return NULL;
}

static const char *add_path(struct paths *paths, char *value)
{
	if (paths->count == CONFIG_PATHS)
		return "a path list is too long";
	if (value[0] != '/')
		return "a path is not absolute";
	paths->path[paths->count++] = value;
	return NULL;
}

static const char *set_tap(struct config *config, const char *value, size_t length)
{
	if (config->tap != NULL)
		return "there is more than one tap";
	if (length == 0 || length > CONFIG_TAP_LENGTH)
		return "a tap's name has 1 to 15 bytes";
	config->tap = value;
	return NULL;
}

const char *config_parse(struct config *config, char *text, size_t length)
{
	memset(config, 0, sizeof *config);
	if (length > CONFIG_BYTES)
		return "the config is too large";
	if (length < sizeof HEADER - 1 || memcmp(text, HEADER, sizeof HEADER - 1) != 0)
		return "the header is not the one of version 1";
	struct reader in = {text + sizeof HEADER - 1, text + length};
	for (size_t records = 0;; records++) {
		const char *key;
		char *value;
		size_t bytes;
		const char *wrong = next_record(&in, &key, &value, &bytes);
		if (wrong != NULL)
			return wrong;
		if (strcmp(key, "end") == 0) {
			if (bytes != 0 || in.at != in.end)
				return "something follows the end";
			break;
		}
		if (records == CONFIG_RECORDS)
			return "there are too many records";
		if (strcmp(key, "argv") == 0)
			config->argv[config->argc++] = value;
		else if (strcmp(key, "connect") == 0)
			wrong = add_path(&config->connect, value);
		else if (strcmp(key, "listen") == 0)
			wrong = add_path(&config->listen, value);
		else if (strcmp(key, "log") == 0)
			wrong = add_path(&config->log, value);
		else if (strcmp(key, "disk") == 0)
			wrong = add_path(&config->disk, value);
		else if (strcmp(key, "tap") == 0)
			wrong = set_tap(config, value, bytes);
		else
			wrong = "a key is unknown";
		if (wrong != NULL)
			return wrong;
	}
	return config->argc > 0 ? NULL : "argv is missing";
}
