/* The instance's own values, which are not in the image. Pure: a buffer in, pointers into it out. */
#include "instance.h"

#include "records.h"
#include "values.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

#define ID_MAX (UINT32_MAX - 1)
#define PREFIX "fcbuild."

static const struct format format = {
	.name = "an instance document",
	.magic = "fcbuild-instance ",
	.bytes_max = INSTANCE_BYTES_MAX,
	.padded = true,
};

static const char UNKNOWN[] = "is no key that an instance has";

static bool is(const char *key, size_t length, const char *name)
{
	return strlen(name) == length && memcmp(key, name, length) == 0;
}

static const char *add(char **list, size_t *count, char *value)
{
	if (*count == CONFIG_RECORDS_MAX)
		return "is there too often";
	list[(*count)++] = value;
	return NULL;
}

/* Take a value that both sources may have. Returns NULL or what is wrong with it. */
static const char *take(struct instance *instance, const char *key, size_t key_length, char *value)
{
	const char *problem;
	if (is(key, key_length, "hostname")) {
		if (instance->hostname != NULL)
			return "is there twice";
		instance->hostname = value;
		return hostname_problem(value, strlen(value));
	}
	if (is(key, key_length, "env")) {
		problem = environment_problem(value);
		return problem != NULL ? problem : add(instance->env, &instance->envc, value);
	}
	if (is(key, key_length, "arg"))
		return add(instance->args, &instance->argc, value);
	enum network_key network = network_key(key, key_length);
	return network != NETWORK_KEYS ? network_config_add(&instance->network, network, value) : UNKNOWN;
}

/* Move `*text` behind the next word and its space. Returns the word's length. */
static size_t next_word(const char **text, const char **word)
{
	*word = *text;
	size_t length = strcspn(*text, " ");
	*text += length + ((*text)[length] == ' ');
	return length;
}

/* Parse `MODE UID GID PATH`. */
static const char *take_file(struct instance *instance, const char *value)
{
	static const char problem[] = "is not MODE UID GID /PATH";
	if (instance->filec == INSTANCE_FILES_MAX)
		return "is there more than 256 times";
	struct instance_file *file = &instance->files[instance->filec];
	const char *word;
	uint64_t uid = 0, gid = 0;
	if (next_word(&value, &word) != 4 || strspn(word, "01234567") != 4)
		return problem;
	file->mode = 0;
	for (size_t i = 0; i < 4; i++)
		file->mode = file->mode * 8 + (mode_t)(word[i] - '0');
	size_t length = next_word(&value, &word);
	if (decimal_parse(word, length, 0, ID_MAX, &uid) != 0)
		return problem;
	length = next_word(&value, &word);
	if (decimal_parse(word, length, 0, ID_MAX, &gid) != 0)
		return problem;
	length = strlen(value);
	if (value[0] != '/' || value[length - 1] == '/')
		return problem;
	if (length >= PATH_MAX)
		return "has a path that is too long";
	file->uid = (uid_t)uid;
	file->gid = (gid_t)gid;
	file->path = value;
	return NULL;
}

int instance_parse(char *text, size_t length, struct instance *instance, char *error, size_t error_size)
{
	struct records records;
	struct record record;
	bool data_follows = false;
	int more;

	if (records_open(&records, &format, text, length, error, error_size) != 0)
		return -1;
	while ((more = records_next(&records, &record)) > 0) {
		const char *problem = NULL;
		bool is_data = record_is(&record, "data");
		if (is_data != data_follows)
			return records_wrong(&records, is_data ? "data without a file before it"
							       : "a file's data is missing before it");
		if (is_data) {
			instance->files[instance->filec].data = record.value;
			instance->files[instance->filec++].length = record.length;
			data_follows = false;
		} else if (!record_is_text(&record)) {
			problem = "holds a NUL byte";
		} else if (record_is(&record, "file")) {
			problem = take_file(instance, record.value);
			data_follows = true;
		} else {
			problem = take(instance, record.key, record.key_length, record.value);
		}
		if (problem == UNKNOWN)
			return records_wrong(&records, "unknown key %.*s", (int)record.key_length, record.key);
		if (problem != NULL)
			return records_wrong(&records, "%.*s %s", (int)record.key_length, record.key, problem);
	}
	if (more == 0 && data_follows)
		return records_wrong(&records, "the last file's data is missing");
	return more;
}

static bool is_space(char c)
{
	return c == ' ' || (c >= '\t' && c <= '\r');
}

/*
 * Cut the next word off the command line as the kernel's next_arg() does (lib/cmdline.c): a double
 * quote holds spaces together, and goes when it encloses the value or the word as a whole. Returns
 * the word's value, NULL when it has none, and moves `*text` behind it.
 */
static char *next_parameter(char **text, char **name)
{
	char *word = *text, *value = NULL;
	bool in_quote = *word == '"', quoted = in_quote;
	if (quoted)
		word++;
	char *end = word;
	for (; *end != '\0' && (in_quote || !is_space(*end)); end++) {
		if (*end == '=' && value == NULL && end != word)
			value = end + 1;
		if (*end == '"')
			in_quote = !in_quote;
	}
	*text = *end != '\0' ? end + 1 : end;
	*end = '\0';
	*name = word;
	if (value != NULL) {
		value[-1] = '\0';
		if (*value == '"') {
			value++;
			if (end[-1] == '"')
				end[-1] = '\0';
		}
	}
	if (quoted && end > word && end[-1] == '"')
		end[-1] = '\0';
	return value;
}

/* Whether it is /dev/NAME, with a NAME that leads nowhere else. */
static const char *drive_problem(const char *value)
{
	static const char devices[] = "/dev/";
	const char *name = value + strlen(devices);
	if (strncmp(value, devices, strlen(devices)) == 0 && *name != '\0' && strlen(name) < NAME_MAX &&
	    strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789") == strlen(name))
		return NULL;
	return "is not /dev/NAME";
}

static const char *take_drive(const char **drive, const char *value)
{
	if (*drive != NULL)
		return "is there twice";
	*drive = value;
	return drive_problem(value);
}

int command_line_parse(char *text, size_t length, struct command_line *command_line, struct instance *instance,
		       char *error, size_t error_size)
{
	text[length] = '\0';
	while (*text != '\0') {
		char *name;
		if (is_space(*text)) {
			text++;
			continue;
		}
		char *value = next_parameter(&text, &name);
		if (strcmp(name, "--") == 0 && value == NULL)
			break; /* what follows is for init's argv */
		if (strncmp(name, PREFIX, strlen(PREFIX)) != 0)
			continue;
		const char *key = name + strlen(PREFIX), *problem;
		if (value == NULL)
			problem = "has no value";
		else if (strcmp(key, "config") == 0)
			problem = take_drive(&command_line->config_drive, value);
		else if (strcmp(key, "overlay") == 0)
			problem = take_drive(&command_line->overlay_drive, value);
		else
			problem = take(instance, key, strlen(key), value);
		if (problem != NULL) {
			snprintf(error, error_size, "%.64s %s", name, problem);
			return -1;
		}
	}
	return 0;
}

static bool same_name(const char *entry, const char *other)
{
	return strncmp(entry, other, strcspn(other, "=") + 1) == 0;
}

/* Put `entry` in the place of the first of its NAME, and drop the others of it; or add it. */
static int merge_env(struct config *config, char *entry)
{
	size_t kept = 0;
	bool placed = false;
	for (size_t i = 0; i < config->envc; i++) {
		char *old = config->env[i];
		if (!same_name(old, entry)) {
			config->env[kept++] = old;
		} else if (!placed) {
			config->env[kept++] = entry;
			placed = true;
		}
	}
	if (!placed) {
		if (kept == CONFIG_RECORDS_MAX)
			return -1;
		config->env[kept++] = entry;
	}
	config->env[kept] = NULL;
	config->envc = kept;
	return 0;
}

/* An image that names its own machine in its environment means this machine. */
static void merge_hostname(struct config *config, const char *hostname)
{
	char was[sizeof config->hostname_env];
	snprintf(was, sizeof was, "HOSTNAME=%s", config->hostname);
	for (size_t i = 0; i < config->envc; i++)
		if (strcmp(config->env[i], was) == 0)
			config->env[i] = config->hostname_env;
	snprintf(config->hostname_env, sizeof config->hostname_env, "HOSTNAME=%s", hostname);
	config->hostname = hostname;
	config->instance_hostname = true;
}

int instance_merge(struct config *config, const struct instance *instance, char *error, size_t error_size)
{
	if (instance->hostname != NULL)
		merge_hostname(config, instance->hostname);
	for (size_t i = 0; i < instance->envc; i++) {
		if (merge_env(config, instance->env[i]) != 0) {
			snprintf(error, error_size, "with the image's there are more than %d env", CONFIG_RECORDS_MAX);
			return -1;
		}
	}
	if (instance->argc > CONFIG_RECORDS_MAX - config->argc) {
		snprintf(error, error_size, "with the image's argv there are more than %d arg", CONFIG_RECORDS_MAX);
		return -1;
	}
	for (size_t i = 0; i < instance->argc; i++)
		config->argv[config->argc++] = instance->args[i];
	config->argv[config->argc] = NULL;
	network_config_merge(&config->network, &instance->network);
	return 0;
}
