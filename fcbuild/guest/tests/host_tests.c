/* Unit tests of the pure parts of PID 1. Prints each failure; exits 1 when there was one. */
#include "config.h"
#include "health.h"
#include "instance.h"
#include "interpreter.h"
#include "json.h"
#include "requests.h"
#include "rtnetlink.h"
#include "search.h"
#include "values.h"

#include <elf.h>
#include <errno.h>
#include <linux/if_addr.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static int failures;

#define CHECK(condition) \
	((condition) ? (void)0 : (void)(failures++, printf("%s:%d: not true: %s\n", __FILE__, __LINE__, #condition)))

static void check_text(int line, const char *is, const char *expected)
{
	if (strcmp(is, expected) != 0) {
		failures++;
		printf("%s:%d: it is <%s>, expected <%s>\n", __FILE__, line, is, expected);
	}
}

#define CHECK_TEXT(is, expected) check_text(__LINE__, is, expected)

static struct config config;

#define HEAD "fcbuild-boot 2\n"
#define REST \
	"workdir 1\n/\nuid 1\n0\ngid 1\n0\nhostname 2\nvm\nstop-signal 2\n15\nstop-grace-ms 5\n10000\n"
#define END "end 0\n\n"

/* A copy of exactly `length` bytes and `room` more, in the place of the last one from here. */
static char *copy_of(char **last, const char *text, size_t length, size_t room)
{
	free(*last);
	*last = malloc(length + room > 0 ? length + room : 1);
	if (*last == NULL)
		abort();
	memcpy(*last, text, length);
	return *last;
}

/* Parse a copy. Returns the error, or "". */
static const char *parse(const char *text, size_t length)
{
	static char error[256];
	static char *last;
	char *copy = copy_of(&last, text, length, 0);
	memset(&config, 0, sizeof config);
	error[0] = '\0';
	int result = config_parse(copy, length, &config, error, sizeof error);
	CHECK((result == 0) == (error[0] == '\0'));
	return error;
}

#define PARSE(text) parse(text, sizeof(text) - 1)

static void test_config(void)
{
	CHECK_TEXT(PARSE(HEAD "argv 3\n/a \nargv 0\n\nargv 5\na\n\nb\n\nenv 3\nB=\n\nenv 3\nA=1\ngroup 1\n5\n" REST END), "");
	CHECK(config.argc == 3 && config.argv[3] == NULL);
	CHECK_TEXT(config.argv[0], "/a ");
	CHECK_TEXT(config.argv[1], "");
	CHECK_TEXT(config.argv[2], "a\n\nb\n");
	CHECK(config.envc == 2 && config.env[2] == NULL);
	CHECK_TEXT(config.env[0], "B=\n");
	CHECK_TEXT(config.env[1], "A=1");
	CHECK(config.groupc == 1 && config.groups[0] == 5);
	CHECK_TEXT(config.workdir, "/");
	CHECK_TEXT(config.hostname, "vm");
	CHECK(config.uid == 0 && config.gid == 0 && config.stop_signal == 15 && config.stop_grace_ms == 10000);

	CHECK_TEXT(PARSE(""), "this is not a boot config");
	CHECK_TEXT(PARSE("fcbuild-boot 2"), "the header line has no end");
	CHECK_TEXT(PARSE("fcbuild-boot 1\n" END), "its version is not 2");
	CHECK_TEXT(PARSE("fcbuild-boot 20\n" END), "its version is not 2");
	CHECK_TEXT(PARSE("fcbuild-instance 2\n" END), "this is not a boot config");
	CHECK_TEXT(PARSE(HEAD), "record 1: the document ends without an end record");
	CHECK_TEXT(PARSE(HEAD END), "argv is missing");
	CHECK_TEXT(PARSE(HEAD REST END), "argv is missing");
	CHECK_TEXT(PARSE(HEAD "argv 1\na\n" END), "workdir is missing");
	CHECK_TEXT(PARSE(HEAD "argv 1\na\n" REST END "\n"), "record 8: there are bytes behind the end record");
	CHECK_TEXT(PARSE(HEAD "argv 1\na\n" REST "end 1\nx\n"), "record 8: the end record has a value");
	CHECK_TEXT(PARSE(HEAD "argv 1\na\n" REST REST END), "record 8: workdir is there twice");
	CHECK_TEXT(PARSE(HEAD "argw 1\na\n" END), "record 1: unknown key argw");
	CHECK_TEXT(PARSE(HEAD "arg 1\na\n" END), "record 1: unknown key arg");
	CHECK_TEXT(PARSE(HEAD "Argv 1\na\n" END), "record 1: it does not start with a key and a space");
	CHECK_TEXT(PARSE(HEAD "aaaaaaaabbbbbbbbccccccccdddddddd 1\na\n" END),
		   "record 1: it does not start with a key and a space");
	CHECK_TEXT(PARSE(HEAD "argv 01\na\n" END), "record 1: argv has no valid length");
	CHECK_TEXT(PARSE(HEAD "argv -1\na\n" END), "record 1: argv has no valid length");
	CHECK_TEXT(PARSE(HEAD "argv \na\n" END), "record 1: argv has no valid length");
	CHECK_TEXT(PARSE(HEAD "argv 99999999999999999999\na\n" END), "record 1: argv has no valid length");
	CHECK_TEXT(PARSE(HEAD "argv 1"), "record 1: argv has no valid length");
	CHECK_TEXT(PARSE(HEAD "argv 1\n"), "record 1: argv is longer than the document");
	CHECK_TEXT(PARSE(HEAD "argv 1\na"), "record 1: argv is longer than the document");
	CHECK_TEXT(PARSE(HEAD "argv 2\na\n" END), "record 1: argv does not end where its length says");
	CHECK_TEXT(PARSE(HEAD "argv 3\na\0b\n" END), "record 1: argv holds a NUL byte");
	CHECK_TEXT(PARSE(HEAD "env 1\na\n" END), "record 1: env is not NAME=value");
	CHECK_TEXT(PARSE(HEAD "env 2\n=a\n" END), "record 1: env is not NAME=value");
	CHECK_TEXT(PARSE(HEAD "workdir 1\na\n" END), "record 1: workdir is not an absolute path");
	CHECK_TEXT(PARSE(HEAD "workdir 0\n\n" END), "record 1: workdir is not an absolute path");
	CHECK_TEXT(PARSE(HEAD "uid 10\n4294967295\n" END), "record 1: uid is not a number from 0 to 4294967294");
	CHECK_TEXT(PARSE(HEAD "gid 2\n1 \n" END), "record 1: gid is not a number from 0 to 4294967294");
	CHECK_TEXT(PARSE(HEAD "stop-signal 2\n65\n" END), "record 1: stop-signal is not a number from 1 to 64");
	CHECK_TEXT(PARSE(HEAD "stop-signal 1\n0\n" END), "record 1: stop-signal is not a number from 1 to 64");
	CHECK_TEXT(PARSE(HEAD "hostname 3\na\nb\n" END), "record 1: hostname is not 1 to 63 of a-z A-Z 0-9 . - _");
	CHECK_TEXT(PARSE(HEAD "hostname 0\n\n" END), "record 1: hostname is not 1 to 63 of a-z A-Z 0-9 . - _");
}

static void test_config_limits(void)
{
	const char record[] = "argv 1\nx\n";
	size_t room = sizeof HEAD + sizeof REST + sizeof END + (CONFIG_RECORDS_MAX + 1) * sizeof record;
	char *text = malloc(room);
	if (text == NULL)
		abort();
	for (int extra = 0; extra < 2; extra++) {
		strcpy(text, HEAD REST);
		char *end = text + strlen(text);
		for (int i = 0; i < CONFIG_RECORDS_MAX - 6 + extra; i++, end += strlen(record))
			strcpy(end, record);
		strcpy(end, END);
		CHECK_TEXT(parse(text, strlen(text)),
			   extra == 0 ? "" : "record 4097: there are more than 4096 records");
	}
	CHECK(config.argc == CONFIG_RECORDS_MAX - 6);
	free(text);

	text = malloc(CONFIG_BYTES_MAX + 1);
	if (text == NULL)
		abort();
	memset(text, 'x', CONFIG_BYTES_MAX + 1);
	int used = sprintf(text, HEAD REST "argv %d\n", 262000);
	text[used] = 'x'; /* sprintf put its NUL there */
	text[used + 262000] = '\n';
	strcpy(text + used + 262001, END);
	CHECK_TEXT(parse(text, (size_t)used + 262001 + strlen(END)), "");
	CHECK(strlen(config.argv[0]) == 262000);
	CHECK_TEXT(parse(text, CONFIG_BYTES_MAX + 1), "it is larger than 262144 bytes");
	free(text);
}

#define HEALTH \
	"health-interval-ms 1\n1\nhealth-timeout-ms 1\n2\nhealth-start-period-ms 1\n0\n" \
	"health-start-interval-ms 1\n4\nhealth-retries 4\n1000\n"

/* One record in an otherwise whole document: the error, or "". */
static const char *parse_with(const char *key, const char *value)
{
	char text[4096];
	int length = snprintf(text, sizeof text, HEAD "argv 1\na\n" REST "%s %zu\n%s\n" END, key, strlen(value), value);
	return parse(text, (size_t)length);
}

static void test_config_modes(void)
{
	CHECK_TEXT(parse_with("root", "overlay"), "");
	CHECK(config.root == ROOT_OVERLAY && !config.handover && config.healthc == 0);
	CHECK_TEXT(parse_with("root", "read-only"), "");
	CHECK(config.root == ROOT_READ_ONLY);
	CHECK_TEXT(parse_with("root", "writable"), "record 8: root is neither read-only nor overlay");
	CHECK_TEXT(parse_with("root", ""), "record 8: root is neither read-only nor overlay");
	CHECK_TEXT(parse_with("handover", ""), "");
	CHECK(config.handover && config.root == ROOT_WRITABLE);
	CHECK_TEXT(parse_with("handover", "1"), "record 8: handover is a flag and has no value");
	CHECK_TEXT(parse_with("writable", "/var/lib"), "");
	CHECK(config.writablec == 1);
	CHECK_TEXT(config.writable[0], "/var/lib");
	CHECK_TEXT(parse_with("writable", "var"), "record 8: writable is not an absolute path");
	CHECK_TEXT(parse_with("writable", ""), "record 8: writable is not an absolute path");

	CHECK_TEXT(PARSE(HEAD "argv 1\na\nhealth 2\n/h\nhealth 0\n\n" HEALTH REST END), "");
	CHECK(config.healthc == 2 && config.health[2] == NULL);
	CHECK_TEXT(config.health[0], "/h");
	CHECK_TEXT(config.health[1], "");
	CHECK(config.health_times.interval_ms == 1 && config.health_times.timeout_ms == 2 &&
	      config.health_times.start_period_ms == 0 && config.health_times.start_interval_ms == 4 &&
	      config.health_times.retries == 1000);
	CHECK_TEXT(PARSE(HEAD "argv 1\na\n" HEALTH REST END), "health-interval-ms is there without health");
	CHECK_TEXT(PARSE(HEAD "argv 1\na\nhealth 1\nh\n" REST END), "health-interval-ms is missing");
	CHECK_TEXT(parse_with("health-retries", "0"), "record 8: health-retries is not a number from 1 to 1000");
	CHECK_TEXT(parse_with("health-retries", "1001"), "record 8: health-retries is not a number from 1 to 1000");
	CHECK_TEXT(parse_with("health-timeout-ms", "0"),
		   "record 8: health-timeout-ms is not a number from 1 to 2147483647");
	CHECK_TEXT(parse_with("health-start-period-ms", "2147483648"),
		   "record 8: health-start-period-ms is not a number from 0 to 2147483647");
}

static void test_config_network(void)
{
	CHECK_TEXT(PARSE(HEAD "argv 1\na\naddress 11\n10.0.0.2/24\naddress 11\nfd00::2/128\ngateway 8\n10.0.0.1\n"
			      "dns 7\n1.1.1.1\nsearch 6\na.b-_c\nhost 13\n10.0.0.9 db a\nmtu 4\n1400\nmmds 0\n\n" REST END),
		   "");
	const struct network_config *network = &config.network;
	CHECK(network->addressc == 2 && network->gatewayc == 1 && network->dnsc == 1 && network->searchc == 1 &&
	      network->hostc == 1 && network->mtu == 1400 && network->mmds);
	CHECK(network->addresses[0].family == AF_INET && network->addresses[0].prefix == 24 &&
	      network->addresses[0].size == 4 && memcmp(network->addresses[0].bytes, "\x0a\0\0\x02", 4) == 0);
	CHECK(network->addresses[1].family == AF_INET6 && network->addresses[1].prefix == 128 &&
	      network->addresses[1].size == 16 && network->addresses[1].bytes[0] == 0xfd &&
	      network->addresses[1].bytes[15] == 2);
	CHECK_TEXT(network->addresses[0].text, "10.0.0.2/24");
	CHECK_TEXT(network->hosts[0], "10.0.0.9 db a");

	static const char *const not_addresses[] = {
		"", "/", "10.0.0.2", "10.0.0.2/", "10.0.0.2/33", "10.0.0.2/024", "10.0.0.2/-1", "10.0.0/24",
		"10.0.0.256/24", " 10.0.0.2/24", "10.0.0.2/24 ", "fd00::2/129", "fd00::2", "fd00:::2/64", "fd00::2%eth0/64",
		"name/24", "10.0.0.2/24/24", "1111:2222:3333:4444:5555:6666:255.255.255.2555/1"};
	for (size_t i = 0; i < sizeof not_addresses / sizeof not_addresses[0]; i++)
		CHECK_TEXT(parse_with("address", not_addresses[i]), "record 8: address is not ADDRESS/PREFIX");
	CHECK_TEXT(parse_with("address", "0.0.0.0/0"), "");
	CHECK_TEXT(parse_with("gateway", "10.0.0.1/8"), "record 8: gateway is not an address");
	CHECK_TEXT(parse_with("gateway", "fe80::1"), "");
	CHECK_TEXT(parse_with("dns", "1.1.1.1\nnameserver 2.2.2.2"), "record 8: dns is not an address");
	CHECK_TEXT(parse_with("dns", ""), "record 8: dns is not an address");
	static const char *const not_domains[] = {"", ".", "a.", ".a", "a..b", "a b", "a\nb", "a\tb", "a/b", "\xc3\xa9",
		"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"};
	for (size_t i = 0; i < sizeof not_domains / sizeof not_domains[0]; i++)
		CHECK_TEXT(parse_with("search", not_domains[i]), "record 8: search is not a domain");
	char domain[300];
	memset(domain, 'a', sizeof domain);
	for (size_t i = 50; i < sizeof domain; i += 50)
		domain[i] = '.';
	domain[253] = '\0';
	CHECK_TEXT(parse_with("search", domain), "");
	domain[253] = 'a';
	domain[254] = '\0';
	CHECK_TEXT(parse_with("search", domain), "record 8: search is not a domain");
	static const char *const not_hosts[] = {"", "10.0.0.1", "10.0.0.1 ", "10.0.0.1  a", "10.0.0.1 a ", " 10.0.0.1 a",
		"a 10.0.0.1", "10.0.0.1\ta", "10.0.0.1 a\n1.1.1.1 b", "10.0.0.1 a#b", "10.0.0.1/8 a"};
	for (size_t i = 0; i < sizeof not_hosts / sizeof not_hosts[0]; i++)
		CHECK_TEXT(parse_with("host", not_hosts[i]), "record 8: host is not ADDRESS NAME [NAME..]");
	CHECK_TEXT(parse_with("mtu", "67"), "record 8: mtu is not a number from 68 to 65535");
	CHECK_TEXT(parse_with("mtu", "65536"), "record 8: mtu is not a number from 68 to 65535");
	CHECK_TEXT(parse_with("mmds", "1"), "record 8: mmds is a flag and has no value");
	CHECK_TEXT(PARSE(HEAD "mtu 2\n68\nmtu 2\n68\n"), "record 2: mtu is there twice");
	CHECK_TEXT(PARSE(HEAD "mmds 0\n\nmmds 0\n\n"), "record 2: mmds is there twice");
	char many[4096] = HEAD;
	for (int i = 0; i < 17; i++)
		strcat(many, "dns 3\n::1\n");
	CHECK_TEXT(parse(many, strlen(many)), "record 17: dns is there more than 16 times");
}

static struct instance instance;

#define INSTANCE "fcbuild-instance 2\n"

/* Parse a copy as an instance document. Returns the error, or "". */
static const char *parse_instance(const char *text, size_t length)
{
	static char error[256];
	static char *last;
	char *copy = copy_of(&last, text, length, 0);
	memset(&instance, 0, sizeof instance);
	error[0] = '\0';
	int result = instance_parse(copy, length, &instance, error, sizeof error);
	CHECK((result == 0) == (error[0] == '\0'));
	return error;
}

#define PARSE_INSTANCE(text) parse_instance(text, sizeof(text) - 1)

static void test_instance(void)
{
	CHECK_TEXT(PARSE_INSTANCE(INSTANCE "hostname 1\nx\nenv 3\nA=1\narg 0\n\ndns 3\n::1\n"
					   "file 15\n4750 0 65534 /a b\ndata 3\nx\0y\nfile 8\n0000 1 2 /c\ndata 0\n\n" END
					   "\0\0\0"),
		   "record 5: file does not end where its length says");
	CHECK_TEXT(PARSE_INSTANCE(INSTANCE "hostname 1\nx\nenv 3\nA=1\narg 0\n\ndns 3\n::1\n"
					   "file 17\n4750 0 65534 /a b\ndata 3\nx\0y\nfile 11\n0000 1 2 /c\ndata 0\n\n" END
					   "\0\0\0"),
		   "");
	CHECK_TEXT(instance.hostname, "x");
	CHECK(instance.envc == 1 && instance.argc == 1 && instance.network.dnsc == 1 && instance.filec == 2);
	CHECK_TEXT(instance.files[0].path, "/a b");
	CHECK(instance.files[0].mode == 04750 && instance.files[0].uid == 0 && instance.files[0].gid == 65534);
	CHECK(instance.files[0].length == 3 && memcmp(instance.files[0].data, "x\0y", 3) == 0);
	CHECK_TEXT(instance.files[1].path, "/c");
	CHECK(instance.files[1].mode == 0 && instance.files[1].length == 0);

	CHECK_TEXT(PARSE_INSTANCE(INSTANCE END), "");
	CHECK_TEXT(PARSE_INSTANCE(""), "this is not an instance document");
	CHECK_TEXT(PARSE_INSTANCE(HEAD END), "this is not an instance document");
	CHECK_TEXT(PARSE_INSTANCE("fcbuild-instance 3\n" END), "its version is not 2");
	CHECK_TEXT(PARSE_INSTANCE(INSTANCE END "\0\0x"), "record 1: there are bytes behind the end record");
	CHECK_TEXT(PARSE_INSTANCE(INSTANCE "\0\0"), "record 1: it does not start with a key and a space");
	CHECK_TEXT(PARSE_INSTANCE(INSTANCE "argv 1\na\n" END), "record 1: unknown key argv");
	CHECK_TEXT(PARSE_INSTANCE(INSTANCE "uid 1\n0\n" END), "record 1: unknown key uid");
	CHECK_TEXT(PARSE_INSTANCE(INSTANCE "hostname 1\na\nhostname 1\na\n" END), "record 2: hostname is there twice");
	CHECK_TEXT(PARSE_INSTANCE(INSTANCE "hostname 3\na b\n" END),
		   "record 1: hostname is not 1 to 63 of a-z A-Z 0-9 . - _");
	CHECK_TEXT(PARSE_INSTANCE(INSTANCE "hostname 3\na\0b\n" END), "record 1: hostname holds a NUL byte");
	CHECK_TEXT(PARSE_INSTANCE(INSTANCE "env 1\na\n" END), "record 1: env is not NAME=value");
	CHECK_TEXT(PARSE_INSTANCE(INSTANCE "data 1\na\n" END), "record 1: data without a file before it");
	CHECK_TEXT(PARSE_INSTANCE(INSTANCE "file 11\n0644 0 0 /a\n" END), "the last file's data is missing");
	CHECK_TEXT(PARSE_INSTANCE(INSTANCE "file 11\n0644 0 0 /a\narg 1\na\n" END),
		   "record 2: a file's data is missing before it");
	static const char *const not_files[] = {"", "0644", "0644 0 0 ", "0644 0 0 a", "0644 0 0 /", "0644 0 0 /a/",
		"644 0 0 /a", "00644 0 0 /a", "0844 0 0 /a", "0644  0 /a", "0644 0 /a", "0644 -1 0 /a",
		"0644 4294967295 0 /a", "0644 0 4294967295 /a", "0644 00 0 /a", "0644 0 0  /a", " 0644 0 0 /a"};
	for (size_t i = 0; i < sizeof not_files / sizeof not_files[0]; i++) {
		char text[256];
		int length = snprintf(text, sizeof text, INSTANCE "file %zu\n%s\ndata 0\n\n" END, strlen(not_files[i]),
				      not_files[i]);
		CHECK_TEXT(parse_instance(text, (size_t)length), "record 1: file is not MODE UID GID /PATH");
	}

	char *text = malloc(INSTANCE_BYTES_MAX + 1);
	if (text == NULL)
		abort();
	memset(text, '\0', INSTANCE_BYTES_MAX + 1);
	int used = sprintf(text, INSTANCE "file 11\n0644 0 0 /a\ndata %d\n", INSTANCE_BYTES_MAX - 61);
	strcpy(text + used + INSTANCE_BYTES_MAX - 61, "\n" END);
	CHECK_TEXT(parse_instance(text, INSTANCE_BYTES_MAX), "");
	CHECK(instance.files[0].length == INSTANCE_BYTES_MAX - 61);
	CHECK_TEXT(parse_instance(text, INSTANCE_BYTES_MAX + 1), "it is larger than 1048576 bytes");
	used = sprintf(text, INSTANCE);
	for (int i = 0; i < 257; i++)
		used += sprintf(text + used, "file 11\n0644 0 0 /a\ndata 0\n\n");
	CHECK_TEXT(parse_instance(text, (size_t)used), "record 513: file is there more than 256 times");
	free(text);
}

static struct command_line command_line;

/* Parse a copy as a kernel command line. Returns the error, or "". */
static const char *parse_line(const char *text)
{
	static char error[256];
	static char *last;
	size_t length = strlen(text);
	char *copy = copy_of(&last, text, length, 1);
	memset(&instance, 0, sizeof instance);
	memset(&command_line, 0, sizeof command_line);
	error[0] = '\0';
	int result = command_line_parse(copy, length, &command_line, &instance, error, sizeof error);
	CHECK((result == 0) == (error[0] == '\0'));
	return error;
}

static void test_command_line(void)
{
	CHECK_TEXT(parse_line(""), "");
	CHECK_TEXT(parse_line("  ro quiet root=/dev/vda virtio_mmio.device=4K@0xd0000000:5 fcbuild=1 xfcbuild.x=1 \n"), "");
	CHECK(command_line.config_drive == NULL && command_line.overlay_drive == NULL && instance.argc == 0);
	CHECK_TEXT(parse_line("ro fcbuild.config=/dev/vdb fcbuild.overlay=/dev/vdc fcbuild.hostname=h\tfcbuild.env=A=b=c "
			      "fcbuild.mmds= fcbuild.address=10.0.0.2/24 fcbuild.host=\"10.0.0.1 a b\"\n"),
		   "");
	CHECK_TEXT(command_line.config_drive, "/dev/vdb");
	CHECK_TEXT(command_line.overlay_drive, "/dev/vdc");
	CHECK_TEXT(instance.hostname, "h");
	CHECK_TEXT(instance.env[0], "A=b=c");
	CHECK(instance.network.mmds && instance.network.addressc == 1 && instance.network.hostc == 1);
	CHECK_TEXT(instance.network.hosts[0], "10.0.0.1 a b");

	/* As the kernel's next_arg() has it. */
	CHECK_TEXT(parse_line("fcbuild.arg=\"a b\" \"fcbuild.arg=c  d\" fcbuild.arg=e\" \"f fcbuild.arg= fcbuild.arg=\"\" "
			      "fcbuild.arg=\"g\"h fcbuild.arg='i fcbuild.arg=\" j"),
		   "");
	static const char *const args[] = {"a b", "c  d", "e\" \"f", "", "", "g\"h", "'i", " j"};
	CHECK(instance.argc == 8);
	for (size_t i = 0; i < instance.argc && i < 8; i++)
		CHECK_TEXT(instance.args[i], args[i]);
	CHECK_TEXT(parse_line("fcbuild.arg=a -- fcbuild.arg=b fcbuild.nonsense=1"), "");
	CHECK(instance.argc == 1);

	CHECK_TEXT(parse_line("fcbuild.nonsense=1"), "fcbuild.nonsense is no key that an instance has");
	CHECK_TEXT(parse_line("fcbuild.file=0644"), "fcbuild.file is no key that an instance has");
	CHECK_TEXT(parse_line("fcbuild.data=x"), "fcbuild.data is no key that an instance has");
	CHECK_TEXT(parse_line("fcbuild.=x"), "fcbuild. is no key that an instance has");
	CHECK_TEXT(parse_line("fcbuild.mmds"), "fcbuild.mmds has no value");
	CHECK_TEXT(parse_line("fcbuild.mtu=1"), "fcbuild.mtu is not a number from 68 to 65535");
	CHECK_TEXT(parse_line("fcbuild.hostname=a fcbuild.hostname=b"), "fcbuild.hostname is there twice");
	CHECK_TEXT(parse_line("fcbuild.config=/dev/vdb fcbuild.config=/dev/vdb"), "fcbuild.config is there twice");
	CHECK_TEXT(parse_line("fcbuild.config=vdb"), "fcbuild.config is not /dev/NAME");
	CHECK_TEXT(parse_line("fcbuild.config=/dev/../etc/passwd"), "fcbuild.config is not /dev/NAME");
	CHECK_TEXT(parse_line("fcbuild.overlay=/dev/"), "fcbuild.overlay is not /dev/NAME");
}

/* The environment, joined by spaces. */
static const char *environment(void)
{
	static char all[512];
	all[0] = '\0';
	for (size_t i = 0; i < config.envc; i++) {
		strcat(all, config.env[i]);
		strcat(all, " ");
	}
	CHECK(config.env[config.envc] == NULL);
	return all;
}

static const char *merge(void)
{
	static char error[256];
	error[0] = '\0';
	int result = instance_merge(&config, &instance, error, sizeof error);
	CHECK((result == 0) == (error[0] == '\0'));
	return error;
}

static void test_merge(void)
{
	CHECK_TEXT(PARSE(HEAD "argv 1\na\nargv 1\nb\nenv 3\nA=1\nenv 4\nAA=2\nenv 11\nHOSTNAME=vm\nenv 3\nA=3\n"
			      "address 10\n10.0.0.1/8\naddress 10\n10.0.0.2/8\ngateway 8\n10.0.0.9\nsearch 1\ns\n"
			      "mtu 3\n999\n" REST END),
		   "");
	CHECK_TEXT(parse_line("fcbuild.env=A=new fcbuild.env=B= fcbuild.env=AA=x fcbuild.env=B=y fcbuild.arg=c "
			      "fcbuild.hostname=one fcbuild.address=::1/128 fcbuild.dns=::2"),
		   "");
	CHECK_TEXT(merge(), "");
	CHECK_TEXT(environment(), "A=new AA=x HOSTNAME=one B=y ");
	CHECK(config.argc == 3 && config.argv[3] == NULL);
	CHECK_TEXT(config.argv[2], "c");
	CHECK_TEXT(config.hostname, "one");
	CHECK(config.network.addressc == 1 && config.network.addresses[0].family == AF_INET6);
	CHECK(config.network.gatewayc == 1 && config.network.searchc == 1 && config.network.mtu == 999);
	CHECK(config.network.dnsc == 1 && !config.network.mmds);

	/* A second source goes over the first. */
	CHECK_TEXT(PARSE_INSTANCE(INSTANCE "hostname 3\ntwo\narg 1\nd\nenv 3\nB=z\nmmds 0\n\nmtu 3\n777\n" END), "");
	CHECK_TEXT(merge(), "");
	CHECK_TEXT(environment(), "A=new AA=x HOSTNAME=two B=z ");
	CHECK_TEXT(config.argv[3], "d");
	CHECK(config.network.addressc == 1 && config.network.mtu == 777 && config.network.mmds);

	/* A HOSTNAME that is something else stays, and so does the instance's own. */
	CHECK_TEXT(PARSE(HEAD "argv 1\na\nenv 10\nHOSTNAME=v\n" REST END), "");
	CHECK_TEXT(merge(), "");
	CHECK_TEXT(environment(), "HOSTNAME=v B=z ");
	CHECK_TEXT(PARSE(HEAD "argv 1\na\nenv 11\nHOSTNAME=vm\n" REST END), "");
	CHECK_TEXT(parse_line("fcbuild.env=HOSTNAME=mine fcbuild.hostname=h"), "");
	CHECK_TEXT(merge(), "");
	CHECK_TEXT(environment(), "HOSTNAME=mine ");

	memset(&config, 0, sizeof config);
	config.argc = CONFIG_RECORDS_MAX;
	CHECK_TEXT(parse_line("fcbuild.arg=a"), "");
	CHECK_TEXT(merge(), "with the image's argv there are more than 4096 arg");
}

typedef size_t json_function(const char *text, char *out, size_t size);

static void check_json(int line, json_function *function, const char *text, size_t size, const char *expected)
{
	char out[256];
	memset(out, '~', sizeof out);
	size_t length = function(text, out, size);
	check_text(line, out, expected);
	CHECK(length == strlen(out) && out[size] == '~');
}

#define CHECK_JSON(text, size, expected) check_json(__LINE__, json_string, text, size, expected)
#define CHECK_TAIL(text, size, expected) check_json(__LINE__, json_tail, text, size, expected)

static void test_json(void)
{
	CHECK_JSON("", 100, "\"\"");
	CHECK_JSON("a\"b\\c/\n\x01\x7f", 100, "\"a\\\"b\\\\c/\\u000a\\u0001\\u007f\"");
	CHECK_JSON("\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80", 100, "\"\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80\"");
	CHECK_JSON("\xff|\xc0\x80|\xed\xa0\x80|\xe2\x82", 100,
		   "\"\\ufffd|\\ufffd\\ufffd|\\ufffd\\ufffd\\ufffd|\\ufffd\\ufffd\"");
	CHECK_JSON("\xf4\x90\x80\x80", 100, "\"\\ufffd\\ufffd\\ufffd\\ufffd\"");
	CHECK_JSON("abcdef", 3, "\"\"");
	CHECK_JSON("abcdef", 6, "\"abc\"");
	CHECK_JSON("abc\xe2\x82\xac", 8, "\"abc\"");
	CHECK_JSON("abc\xe2\x82\xac", 9, "\"abc\xe2\x82\xac\"");
	CHECK_TAIL("", 3, "\"\"");
	CHECK_TAIL("abc", 6, "\"abc\"");
	CHECK_TAIL("abcdef", 6, "\"def\"");
	CHECK_TAIL("abcdef", 3, "\"\"");
	CHECK_TAIL("ab\xe2\x82\xac", 6, "\"\xe2\x82\xac\"");
	CHECK_TAIL("ab\xe2\x82\xac", 5, "\"\"");
	CHECK_TAIL("a\n\xff\"", 12, "\"\\ufffd\\\"\"");
}

static void test_requests(void)
{
	int signal = -1;
	uint16_t port = 0;
	CHECK(request_control("stop", 4, &signal) && signal == 0);
	CHECK(request_control("signal 9", 8, &signal) && signal == 9);
	CHECK(request_control("signal 64", 9, &signal) && signal == 64);
	CHECK(!request_control("signal 65", 9, &signal));
	CHECK(!request_control("signal 0", 8, &signal));
	CHECK(!request_control("signal", 6, &signal));
	CHECK(!request_control("signal ", 7, &signal));
	CHECK(!request_control("stop ", 5, &signal));
	CHECK(!request_control("", 0, &signal));
	CHECK(request_forward("tcp 1", 5, &port) && port == 1);
	CHECK(request_forward("tcp 65535", 9, &port) && port == 65535);
	CHECK(!request_forward("tcp 65536", 9, &port));
	CHECK(!request_forward("tcp 0", 5, &port));
	CHECK(!request_forward("tcp 080", 7, &port));
	CHECK(!request_forward("tcp 80\r", 7, &port));
	CHECK(!request_forward("tcp 99999999999999999999", 24, &port));
	CHECK(!request_forward("udp 80", 6, &port));
	CHECK(!request_forward("tcp -1", 6, &port));
}

static enum request_state read_from(const char *text, size_t length, struct request *request, size_t *line)
{
	int ends[2];
	if (pipe(ends) != 0 || write(ends[1], text, length) != (ssize_t)length)
		abort();
	close(ends[1]);
	memset(request, 0, sizeof *request);
	enum request_state state = request_read(request, ends[0], line);
	close(ends[0]);
	return state;
}

static void test_request_lines(void)
{
	struct request request;
	size_t line = 0;
	char full[128];
	CHECK(read_from("tcp 80\nGET", 10, &request, &line) == REQUEST_WHOLE && line == 6 && request.length == 10);
	CHECK(read_from("tcp 80", 6, &request, &line) == REQUEST_GONE);
	memset(full, 'x', sizeof full);
	CHECK(read_from(full, sizeof full, &request, &line) == REQUEST_TOO_LONG);
	full[64] = '\n';
	CHECK(read_from(full, sizeof full, &request, &line) == REQUEST_TOO_LONG);
	full[63] = '\n';
	CHECK(read_from(full, sizeof full, &request, &line) == REQUEST_WHOLE && line == 63);
}

/* All candidates, joined by spaces. */
static const char *candidates(const char *path, const char *name)
{
	static char all[512];
	char candidate[64];
	all[0] = '\0';
	while (search_next(&path, name, candidate, sizeof candidate)) {
		strcat(all, candidate);
		strcat(all, " ");
	}
	return all;
}

static void test_search(void)
{
	char *env[] = {"PATHS=/no", "PATH=/a:/b", "PATH=/c", NULL};
	char *empty[] = {"PATH=", NULL};
	char *none[] = {NULL};
	CHECK_TEXT(search_path(env), "/a:/b");
	CHECK_TEXT(search_path(none), "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
	CHECK_TEXT(search_path(empty), search_path(none));
	CHECK_TEXT(candidates("/a:/b", "x"), "/a/x /b/x ");
	CHECK_TEXT(candidates("/a::b:", "x"), "/a/x x b/x x ");
	CHECK_TEXT(candidates("/a:/b", "./x"), "./x ");
	CHECK_TEXT(candidates("/a:/b", ""), " ");
	CHECK_TEXT(candidates("/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa:/b", "x"),
		   "/b/x ");
}

static void test_interpreter(void)
{
	char path[64] = "";
	CHECK(interpreter_of("#!/bin/sh -e\n", 13, path, sizeof path));
	CHECK_TEXT(path, "/bin/sh");
	CHECK(interpreter_of("#! /x\n", 6, path, sizeof path));
	CHECK_TEXT(path, "/x");
	CHECK(!interpreter_of("#!/bin/sh", 9, path, sizeof path));
	CHECK(!interpreter_of("#!\n", 3, path, sizeof path));
	CHECK(!interpreter_of("hello\n", 6, path, sizeof path));
	CHECK(!interpreter_of("", 0, path, sizeof path));

	struct {
		Elf64_Ehdr file;
		Elf64_Phdr part;
		char text[16];
	} elf = {
		.file = {.e_ident = {0x7f, 'E', 'L', 'F', ELFCLASS64},
			 .e_phoff = sizeof(Elf64_Ehdr),
			 .e_phentsize = sizeof(Elf64_Phdr),
			 .e_phnum = 1},
		.part = {.p_type = PT_INTERP, .p_offset = sizeof(Elf64_Ehdr) + sizeof(Elf64_Phdr), .p_filesz = 7},
		.text = "/ld.so",
	};
	CHECK(interpreter_of((char *)&elf, sizeof elf, path, sizeof path));
	CHECK_TEXT(path, "/ld.so");
	for (size_t length = 0; length < sizeof elf - 16; length++)
		CHECK(!interpreter_of((char *)&elf, length, path, sizeof path));
	elf.part.p_offset = UINT64_MAX;
	CHECK(!interpreter_of((char *)&elf, sizeof elf, path, sizeof path));
	elf.file.e_phoff = UINT64_MAX - 8;
	CHECK(!interpreter_of((char *)&elf, sizeof elf, path, sizeof path));
}

/* Points in time of the health tests. */
#define MS(n) ((uint64_t)(n)*1000000u)

/* The check that is due at `at` starts then, not earlier, and ends with `code` one millisecond later. */
static void check_at(int line, struct health *health, uint64_t at, int code)
{
	if (health->due != at || health_step(health, at - 1) != HEALTH_WAIT || health_step(health, at) != HEALTH_START) {
		failures++;
		printf("%s:%d: no check is due at %llu but at %llu\n", __FILE__, line, (unsigned long long)at,
		       (unsigned long long)health->due);
	}
	health_ended(health, code, at + MS(1));
}

#define CHECK_AT(at, code) check_at(__LINE__, &health, at, code)

static void test_health(void)
{
	const struct health_times times = {.interval_ms = 30000, .timeout_ms = 500, .retries = 3, .start_interval_ms = 5000};
	struct health health;

	/* Without a start period every failure counts, and the third in a row makes it unhealthy. */
	health_begin(&health, &times, MS(1000));
	CHECK(health.status == HEALTH_STARTING && health.failing == 0);
	CHECK_AT(MS(31000), 1);
	CHECK(health.status == HEALTH_STARTING && health.failing == 1);
	CHECK_AT(MS(61001), 255);
	CHECK(health.status == HEALTH_STARTING && health.failing == 2);
	CHECK_AT(MS(91002), 127);
	CHECK(health.status == HEALTH_UNHEALTHY && health.failing == 3);
	CHECK_AT(MS(121003), 1);
	CHECK(health.status == HEALTH_UNHEALTHY && health.failing == 4);
	/* One success is enough, and the count starts again. */
	CHECK_AT(MS(151004), 0);
	CHECK(health.status == HEALTH_HEALTHY && health.failing == 0);
	CHECK_AT(MS(181005), 1);
	CHECK_AT(MS(211006), 1);
	CHECK_AT(MS(241007), 0);
	CHECK_AT(MS(271008), 1);
	CHECK_AT(MS(301009), 1);
	CHECK(health.status == HEALTH_HEALTHY && health.failing == 2);
	CHECK_AT(MS(331010), 1);
	CHECK(health.status == HEALTH_UNHEALTHY && health.failing == 3);
}

static void test_health_start_period(void)
{
	struct health_times times = {.interval_ms = 30000, .timeout_ms = 500, .retries = 1,
				     .start_period_ms = 12000, .start_interval_ms = 5000};
	struct health health;

	/* Failures in it do not count. The check that starts before its end is still forgiven. */
	health_begin(&health, &times, 0);
	CHECK_AT(MS(5000), 1);
	CHECK_AT(MS(10001), 1);
	CHECK(health.status == HEALTH_STARTING && health.failing == 0);
	CHECK(health.due == MS(15002));
	CHECK(health_step(&health, MS(15002)) == HEALTH_START);
	health_ended(&health, 1, MS(15003));
	CHECK(health.status == HEALTH_UNHEALTHY && health.failing == 1);
	CHECK(health.due == MS(45003));

	/* Started within it, ended outside. */
	times.timeout_ms = 60000;
	health_begin(&health, &times, 0);
	CHECK_AT(MS(5000), 1);
	CHECK(health_step(&health, MS(10001)) == HEALTH_START);
	health_ended(&health, 1, MS(13000));
	CHECK(health.status == HEALTH_STARTING && health.failing == 0);
	CHECK(health.due == MS(43000));

	/* A success in it ends "starting": from there on failures count and the interval is the long one. */
	health_begin(&health, &times, 0);
	CHECK_AT(MS(5000), 0);
	CHECK(health.status == HEALTH_HEALTHY);
	CHECK(health.due == MS(35001));
	times.interval_ms = 1000;
	health_begin(&health, &times, 0);
	CHECK_AT(MS(5000), 0);
	CHECK_AT(MS(6001), 1);
	CHECK(health.status == HEALTH_UNHEALTHY && health.failing == 1);
}

static void test_health_timeout(void)
{
	const struct health_times times = {.interval_ms = 1000, .timeout_ms = 500, .retries = 1};
	struct health health;

	health_begin(&health, &times, 0);
	CHECK(health_step(&health, MS(1010)) == HEALTH_START); /* PID 1 was late */
	CHECK(health.due == MS(1510));
	CHECK(health_step(&health, MS(1510) - 1) == HEALTH_WAIT);
	CHECK(health_step(&health, MS(1510)) == HEALTH_KILL);
	CHECK(health.status == HEALTH_UNHEALTHY && health.failing == 1);
	/* Nothing starts before it has ended, and its end is not another result. */
	CHECK(health.due == UINT64_MAX && health_step(&health, MS(99000)) == HEALTH_WAIT);
	health_ended(&health, 137, MS(99000));
	CHECK(health.failing == 1 && health.due == MS(100000));
	/* It may even say that all is well: too late. */
	CHECK(health_step(&health, MS(100000)) == HEALTH_START);
	CHECK(health_step(&health, MS(100500)) == HEALTH_KILL);
	health_ended(&health, 0, MS(100501));
	CHECK(health.status == HEALTH_UNHEALTHY && health.failing == 2);

	/* After a stop there is no result and no check. */
	CHECK(health_step(&health, MS(101501)) == HEALTH_START);
	health_stop(&health);
	CHECK(health.due == UINT64_MAX && health_step(&health, MS(200000)) == HEALTH_WAIT);
	health_ended(&health, 0, MS(200000));
	CHECK(health.status == HEALTH_UNHEALTHY && health.due == UINT64_MAX);
}

static void test_machine(void)
{
	char text[32];
	Elf64_Ehdr file = {.e_ident = {0x7f, 'E', 'L', 'F', ELFCLASS64, ELFDATA2LSB}, .e_machine = EM_AARCH64};
	CHECK_TEXT(machine_of((char *)&file, sizeof file, text, sizeof text), "aarch64");
	file.e_machine = EM_X86_64;
	CHECK_TEXT(machine_of((char *)&file, sizeof file, text, sizeof text), "x86_64");
	file.e_machine = 0xfedc;
	CHECK_TEXT(machine_of((char *)&file, sizeof file, text, sizeof text), "ELF machine 65244");
	file.e_machine = EM_PPC64;
	CHECK_TEXT(machine_of((char *)&file, sizeof file, text, sizeof text), "ppc64le");
	file.e_ident[EI_DATA] = ELFDATA2MSB;
	file.e_machine = EM_S390 << 8;
	CHECK_TEXT(machine_of((char *)&file, sizeof file, text, sizeof text), "s390x");
	CHECK(machine_of((char *)&file, 20, text, sizeof text) != NULL);
	CHECK(machine_of((char *)&file, 19, text, sizeof text) == NULL);
	CHECK(machine_of("", 0, text, sizeof text) == NULL);
	CHECK(machine_of("#!/bin/sh this is no ELF file\n", 30, text, sizeof text) == NULL);
	CHECK(machine_here() != NULL);
}

/* The attribute `type` behind a body of `body` bytes, which has to be `size` long. NULL: it is not there. */
static const void *attribute_of(const struct rtnetlink_request *request, size_t body, int type, size_t size)
{
	const struct nlmsghdr *header = (const struct nlmsghdr *)request->bytes;
	CHECK(header->nlmsg_len == request->length && NLMSG_OK(header, (int)request->length));
	int left = (int)(header->nlmsg_len - NLMSG_SPACE(body));
	const struct rtattr *attribute = (const struct rtattr *)(request->bytes + NLMSG_SPACE(body));
	for (; RTA_OK(attribute, left); attribute = RTA_NEXT(attribute, left)) {
		if (attribute->rta_type != type)
			continue;
		CHECK(RTA_PAYLOAD(attribute) == size);
		return RTA_DATA(attribute);
	}
	CHECK(left == 0);
	return NULL;
}

static const void *body_of(const struct rtnetlink_request *request, int type, int flags, uint32_t sequence)
{
	const struct nlmsghdr *header = (const struct nlmsghdr *)request->bytes;
	CHECK(header->nlmsg_type == type && header->nlmsg_flags == (NLM_F_REQUEST | NLM_F_ACK | flags));
	CHECK(header->nlmsg_seq == sequence && header->nlmsg_pid == 0);
	return NLMSG_DATA(header);
}

/* Every message is the one that the kernel's own headers describe. */
static void test_rtnetlink(void)
{
	struct rtnetlink_request request;
	struct address four, six;
	CHECK(address_parse_prefix("10.1.2.3/24", &four) == 0 && address_parse_prefix("fd00::5/64", &six) == 0);
	const int create = NLM_F_CREATE | NLM_F_EXCL;

	rtnetlink_find(&request, 1, "eth0");
	const struct ifinfomsg *link = body_of(&request, RTM_GETLINK, 0, 1);
	CHECK(link->ifi_index == 0);
	CHECK_TEXT(attribute_of(&request, sizeof *link, IFLA_IFNAME, 5), "eth0");

	rtnetlink_mtu(&request, 2, 7, 1400);
	link = body_of(&request, RTM_NEWLINK, 0, 2);
	CHECK(link->ifi_index == 7 && link->ifi_change == 0);
	CHECK(*(const uint32_t *)attribute_of(&request, sizeof *link, IFLA_MTU, 4) == 1400);

	rtnetlink_up(&request, 3, 7);
	link = body_of(&request, RTM_NEWLINK, 0, 3);
	CHECK(link->ifi_index == 7 && link->ifi_flags == IFF_UP && link->ifi_change == IFF_UP);
	CHECK(request.length == NLMSG_SPACE(sizeof *link));

	rtnetlink_address(&request, 4, 7, &four);
	const struct ifaddrmsg *address = body_of(&request, RTM_NEWADDR, create, 4);
	CHECK(address->ifa_family == AF_INET && address->ifa_prefixlen == 24 && address->ifa_flags == 0 &&
	      address->ifa_scope == RT_SCOPE_UNIVERSE && address->ifa_index == 7);
	CHECK(memcmp(attribute_of(&request, sizeof *address, IFA_LOCAL, 4), "\x0a\1\2\3", 4) == 0);
	CHECK(memcmp(attribute_of(&request, sizeof *address, IFA_ADDRESS, 4), "\x0a\1\2\3", 4) == 0);
	rtnetlink_address(&request, 5, 7, &six);
	address = body_of(&request, RTM_NEWADDR, create, 5);
	CHECK(address->ifa_family == AF_INET6 && address->ifa_prefixlen == 64 && address->ifa_flags == IFA_F_NODAD);
	CHECK(memcmp(attribute_of(&request, sizeof *address, IFA_LOCAL, 16), six.bytes, 16) == 0);

	rtnetlink_default_route(&request, 6, 7, &six);
	const struct rtmsg *route = body_of(&request, RTM_NEWROUTE, create, 6);
	CHECK(route->rtm_family == AF_INET6 && route->rtm_dst_len == 0 && route->rtm_src_len == 0 &&
	      route->rtm_table == RT_TABLE_MAIN && route->rtm_protocol == RTPROT_BOOT &&
	      route->rtm_scope == RT_SCOPE_UNIVERSE && route->rtm_type == RTN_UNICAST && route->rtm_flags == 0);
	CHECK(*(const uint32_t *)attribute_of(&request, sizeof *route, RTA_OIF, 4) == 7);
	CHECK(memcmp(attribute_of(&request, sizeof *route, RTA_GATEWAY, 16), six.bytes, 16) == 0);
	CHECK(attribute_of(&request, sizeof *route, RTA_DST, 0) == NULL);

	CHECK(address_parse("169.254.169.254", &four) == 0);
	rtnetlink_host_route(&request, 7, 7, &four);
	route = body_of(&request, RTM_NEWROUTE, create, 7);
	CHECK(route->rtm_family == AF_INET && route->rtm_dst_len == 32 && route->rtm_scope == RT_SCOPE_LINK);
	CHECK(memcmp(attribute_of(&request, sizeof *route, RTA_DST, 4), "\xa9\xfe\xa9\xfe", 4) == 0);
	CHECK(attribute_of(&request, sizeof *route, RTA_GATEWAY, 0) == NULL);

	char name[RTNETLINK_BYTES_MAX + 1];
	memset(name, 'x', sizeof name);
	name[sizeof name - 1] = '\0';
	rtnetlink_find(&request, 8, name);
	CHECK(request.length == 0);
}

static void test_rtnetlink_answers(void)
{
	struct {
		struct nlmsghdr link_header;
		struct ifinfomsg link;
		char more[20];
		struct nlmsghdr error_header;
		struct nlmsgerr error;
	} both = {
		.link_header = {.nlmsg_type = RTM_NEWLINK, .nlmsg_seq = 3,
				.nlmsg_len = sizeof(struct nlmsghdr) + sizeof(struct ifinfomsg) + 20},
		.link = {.ifi_index = 9},
		.error_header = {.nlmsg_type = NLMSG_ERROR, .nlmsg_seq = 3, .nlmsg_len = NLMSG_LENGTH(sizeof(struct nlmsgerr))},
	};
	struct rtnetlink_answer answer = rtnetlink_answer(&both, sizeof both, 3);
	CHECK(answer.acknowledged && answer.error == 0 && answer.index == 9);
	answer = rtnetlink_answer(&both, sizeof both, 4);
	CHECK(!answer.acknowledged && answer.index == 0);
	both.error.error = -ENODEV;
	answer = rtnetlink_answer(&both, sizeof both, 3);
	CHECK(answer.acknowledged && answer.error == ENODEV);
	both.error.error = 5;
	CHECK(rtnetlink_answer(&both, sizeof both, 3).error == EPROTO);
	/* A description that the buffer cut. */
	both.link_header.nlmsg_len = 4000;
	answer = rtnetlink_answer(&both, sizeof both, 3);
	CHECK(!answer.acknowledged && answer.index == 9);
	for (size_t length = 0; length < sizeof(struct nlmsghdr) + sizeof(struct ifinfomsg); length++)
		CHECK(rtnetlink_answer(&both, length, 3).index == 0);
	/* Lengths that lead nowhere. */
	for (uint32_t length = 0; length < sizeof(struct nlmsghdr); length++) {
		both.link_header.nlmsg_len = length;
		CHECK(!rtnetlink_answer(&both, sizeof both, 3).acknowledged);
	}
	both.link_header.nlmsg_len = UINT32_MAX;
	CHECK(!rtnetlink_answer(&both, sizeof both, 3).acknowledged);
}

int main(void)
{
	test_config();
	test_config_limits();
	test_config_modes();
	test_config_network();
	test_instance();
	test_command_line();
	test_merge();
	test_json();
	test_requests();
	test_request_lines();
	test_search();
	test_interpreter();
	test_health();
	test_health_start_period();
	test_health_timeout();
	test_machine();
	test_rtnetlink();
	test_rtnetlink_answers();
	printf("%d failures\n", failures);
	return failures != 0;
}
