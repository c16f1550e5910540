/* The boot config's parser. Pure: a buffer in, pointers into it out. */
#include "config.h"

#include "values.h"

#include <string.h>

/* (uid_t)-1 means "leave as it is" to the kernel, so it is nobody's number. */
#define ID_MAX (UINT32_MAX - 1)
#define SIGNAL_MAX 64
#define MS_MAX INT32_MAX
#define RETRIES_MAX 1000

static const struct format format = {
	.name = "a boot config",
	.magic = "fcbuild-boot ",
	.bytes_max = CONFIG_BYTES_MAX,
};

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
	KEY_HANDOVER,
	KEY_ROOT,
	KEY_WRITABLE,
	KEY_HEALTH,
	KEY_HEALTH_INTERVAL_MS,
	KEY_HEALTH_TIMEOUT_MS,
	KEY_HEALTH_START_PERIOD_MS,
	KEY_HEALTH_START_INTERVAL_MS,
	KEY_HEALTH_RETRIES,
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
	[KEY_HANDOVER] = {"handover", false, true},
	[KEY_ROOT] = {"root", false, true},
	[KEY_WRITABLE] = {"writable", false, false},
	[KEY_HEALTH] = {"health", false, false},
	[KEY_HEALTH_INTERVAL_MS] = {"health-interval-ms", false, true},
	[KEY_HEALTH_TIMEOUT_MS] = {"health-timeout-ms", false, true},
	[KEY_HEALTH_START_PERIOD_MS] = {"health-start-period-ms", false, true},
	[KEY_HEALTH_START_INTERVAL_MS] = {"health-start-interval-ms", false, true},
	[KEY_HEALTH_RETRIES] = {"health-retries", false, true},
};

static int wrong_value(struct records *records, const struct record *record, const char *problem)
{
	return records_wrong(records, "%.*s %s", (int)record->key_length, record->key, problem);
}

/* Returns the number, or UINT64_MAX after a complaint. */
static uint64_t number_of(struct records *records, const struct record *record, uint64_t least, uint64_t most)
{
	uint64_t number = 0;
	if (decimal_parse(record->value, record->length, least, most, &number) == 0)
		return number;
	records_wrong(records, "%.*s is not a number from %llu to %llu", (int)record->key_length, record->key,
		      (unsigned long long)least, (unsigned long long)most);
	return UINT64_MAX;
}

static int take_ms(struct records *records, const struct record *record, uint64_t least, uint32_t *ms)
{
	uint64_t number = number_of(records, record, least, MS_MAX);
	if (number == UINT64_MAX)
		return -1;
	*ms = (uint32_t)number;
	return 0;
}

static int take_id(struct records *records, const struct record *record, uint32_t *id)
{
	uint64_t number = number_of(records, record, 0, ID_MAX);
	if (number == UINT64_MAX)
		return -1;
	*id = (uint32_t)number;
	return 0;
}

static int take_network(struct records *records, const struct record *record, struct config *config)
{
	enum network_key key = network_key(record->key, record->key_length);
	if (key == NETWORK_KEYS)
		return records_wrong(records, "unknown key %.*s", (int)record->key_length, record->key);
	const char *problem = network_config_add(&config->network, key, record->value);
	return problem == NULL ? 0 : wrong_value(records, record, problem);
}

static int take(struct records *records, enum key key, const struct record *record, struct config *config)
{
	const char *problem = NULL;
	uint64_t number = 0;
	switch (key) {
	case KEY_ARGV:
		config->argv[config->argc++] = record->value;
		return 0;
	case KEY_ENV:
		if ((problem = environment_problem(record->value)) != NULL)
			return wrong_value(records, record, problem);
		config->env[config->envc++] = record->value;
		return 0;
	case KEY_WORKDIR:
		if (record->value[0] != '/')
			return wrong_value(records, record, "is not an absolute path");
		config->workdir = record->value;
		return 0;
	case KEY_UID:
		return take_id(records, record, &config->uid);
	case KEY_GID:
		return take_id(records, record, &config->gid);
	case KEY_GROUP:
		return take_id(records, record, &config->groups[config->groupc++]);
	case KEY_HOSTNAME:
		if ((problem = hostname_problem(record->value, record->length)) != NULL)
			return wrong_value(records, record, problem);
		config->hostname = record->value;
		return 0;
	case KEY_STOP_SIGNAL:
		if ((number = number_of(records, record, 1, SIGNAL_MAX)) == UINT64_MAX)
			return -1;
		config->stop_signal = (int)number;
		return 0;
	case KEY_STOP_GRACE_MS:
		return take_ms(records, record, 0, &config->stop_grace_ms);
	case KEY_HANDOVER:
		if (record->length != 0)
			return wrong_value(records, record, "is a flag and has no value");
		config->handover = true;
		return 0;
	case KEY_ROOT:
		if (strcmp(record->value, "read-only") == 0)
			config->root = ROOT_READ_ONLY;
		else if (strcmp(record->value, "overlay") == 0)
			config->root = ROOT_OVERLAY;
		else
			return wrong_value(records, record, "is neither read-only nor overlay");
		return 0;
	case KEY_WRITABLE:
		if (record->value[0] != '/')
			return wrong_value(records, record, "is not an absolute path");
		config->writable[config->writablec++] = record->value;
		return 0;
	case KEY_HEALTH:
		config->health[config->healthc++] = record->value;
		return 0;
	case KEY_HEALTH_INTERVAL_MS:
		return take_ms(records, record, 1, &config->health_times.interval_ms);
	case KEY_HEALTH_TIMEOUT_MS:
		return take_ms(records, record, 1, &config->health_times.timeout_ms);
	case KEY_HEALTH_START_PERIOD_MS:
		return take_ms(records, record, 0, &config->health_times.start_period_ms);
	case KEY_HEALTH_START_INTERVAL_MS:
		return take_ms(records, record, 1, &config->health_times.start_interval_ms);
	case KEY_HEALTH_RETRIES:
		if ((number = number_of(records, record, 1, RETRIES_MAX)) == UINT64_MAX)
			return -1;
		config->health_times.retries = (unsigned)number;
		return 0;
	case KEYS:
		break;
	}
	return take_network(records, record, config);
}

/* Whether the keys are there as often as they have to be. */
static int check_presence(struct records *records, const unsigned seen[KEYS])
{
	for (size_t key = 0; key < KEYS; key++)
		if (keys[key].least_once && seen[key] == 0)
			return records_wrong(records, "%s is missing", keys[key].name);
	for (size_t key = KEY_HEALTH + 1; key < KEYS; key++)
		if ((seen[key] > 0) != (seen[KEY_HEALTH] > 0))
			return records_wrong(records, seen[key] > 0 ? "%s is there without health" : "%s is missing",
					     keys[key].name);
	return 0;
}

int config_parse(char *text, size_t length, struct config *config, char *error, size_t error_size)
{
	struct records records;
	unsigned seen[KEYS] = {0};

	if (records_open(&records, &format, text, length, error, error_size) != 0)
		return -1;
	struct record record;
	int more;
	while ((more = records_next(&records, &record)) > 0) {
		if (!record_is_text(&record))
			return wrong_value(&records, &record, "holds a NUL byte");
		size_t key = 0;
		while (key < KEYS && !record_is(&record, keys[key].name))
			key++;
		if (key < KEYS && seen[key]++ > 0 && keys[key].most_once)
			return wrong_value(&records, &record, "is there twice");
		if (take(&records, (enum key)key, &record, config) != 0)
			return -1;
	}
	return more == 0 ? check_presence(&records, seen) : -1;
}
