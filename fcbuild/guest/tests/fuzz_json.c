/* JSON strings of texts from the image and the guest's programs. */
#include "fuzz.h"
#include "json.h"

/* Whether the `length` bytes at `text` are one JSON string (RFC 8259, section 7) of printable characters. */
static bool is_string(const char *text, size_t length)
{
	if (length < 2 || text[0] != '"' || text[length - 1] != '"')
		return false;
	for (size_t i = 1; i < length - 1; i++) {
		unsigned char c = (unsigned char)text[i];
		if (c < 0x20 || c == 0x7f || c == '"')
			return false;
		if (c != '\\')
			continue;
		if (++i == length - 1)
			return false;
		if (text[i] == 'u' && (length - 1 - i <= 4 || strspn(text + i + 1, "0123456789abcdef") < 4))
			return false;
		if (strchr("\"\\u", text[i]) == NULL)
			return false;
	}
	return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	/* The first byte is the room for the result. */
	size_t room = size > 0 ? data[0] + 3u : 3;
	char *text = size > 0 ? string_of(data + 1, size - 1) : string_of("", 0);
	char *out = copy_of("", 0, room);
	size_t length = json_string(text, out, room);
	check(length < room && out[length] == '\0' && strlen(out) == length);
	check(is_string(out, length));
	free(out);
	free(text);
	return 0;
}
