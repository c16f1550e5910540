/* JSON strings of texts from the image and from the guest's programs. */
#include "fuzz.h"
#include "json.h"

/* The length of the UTF-8 character at `s`, or 0: decoded, and held against RFC 3629's table of lengths. */
static size_t character(const unsigned char *s, size_t left)
{
	static const struct {
		unsigned mask, lead, least;
	} forms[] = {{0x80, 0x00, 0}, {0xe0, 0xc0, 0x80}, {0xf0, 0xe0, 0x800}, {0xf8, 0xf0, 0x10000}};
	for (size_t extra = 0; extra < 4; extra++) {
		if ((s[0] & forms[extra].mask) != forms[extra].lead)
			continue;
		if (extra >= left)
			return 0;
		uint32_t value = s[0] & ~forms[extra].mask & 0xff;
		for (size_t i = 1; i <= extra; i++) {
			if ((s[i] & 0xc0) != 0x80)
				return 0;
			value = value << 6 | (s[i] & 0x3f);
		}
		bool is_one = value >= forms[extra].least && value <= 0x10ffff && (value < 0xd800 || value > 0xdfff);
		return is_one ? extra + 1 : 0;
	}
	return 0;
}

/* Whether the `length` bytes at `text` are one JSON string (RFC 8259, section 7) of printable characters. */
static bool is_string(const char *text, size_t length)
{
	if (length < 2 || text[0] != '"' || text[length - 1] != '"')
		return false;
	for (size_t i = 1, taken; i < length - 1; i += taken) {
		unsigned char c = (unsigned char)text[i];
		taken = character((const unsigned char *)text + i, length - 1 - i);
		if (taken == 0 || c < 0x20 || c == 0x7f || c == '"')
			return false;
		if (c != '\\')
			continue;
		char what = text[i + 1];
		taken = what == 'u' ? 6 : 2;
		if (strchr("\"\\u", what) == NULL || i + taken > length - 1)
			return false;
		if (what == 'u' && strspn(text + i + 2, "0123456789abcdef") < 4)
			return false;
	}
	return true;
}

static void check_result(const char *out, size_t length, size_t room)
{
	check(length < room && out[length] == '\0' && strlen(out) == length);
	check(is_string(out, length));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	/* The first byte is the room for the result. */
	size_t room = size > 0 ? data[0] + 3u : 3;
	char *text = size > 0 ? string_of(data + 1, size - 1) : string_of("", 0);
	char *out = copy_of("", 0, room);
	check_result(out, json_string(text, out, room), room);
	check_result(out, json_tail(text, out, room), room);
	free(out);
	free(text);
	return 0;
}
