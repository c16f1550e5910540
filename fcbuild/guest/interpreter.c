/* Which other program a file needs to run. Pure. */
#include "interpreter.h"

#include <elf.h>
#include <stdint.h>
#include <string.h>

static bool copy(const char *from, size_t length, char *path, size_t path_size)
{
	if (length < 1 || length >= path_size)
		return false;
	memcpy(path, from, length);
	path[length] = '\0';
	return true;
}

static bool script_interpreter(const char *head, size_t length, char *path, size_t path_size)
{
	size_t start = 2;
	while (start < length && (head[start] == ' ' || head[start] == '\t'))
		start++;
	size_t end = start;
	while (end < length && strchr(" \t\n", head[end]) == NULL) /* finds NUL, too */
		end++;
	return end < length && copy(head + start, end - start, path, path_size);
}

static bool elf_interpreter(const char *head, size_t length, char *path, size_t path_size)
{
	Elf64_Ehdr file;
	if (length < sizeof file)
		return false;
	memcpy(&file, head, sizeof file);
	if (file.e_ident[EI_CLASS] != ELFCLASS64 || file.e_phentsize != sizeof(Elf64_Phdr))
		return false;
	for (size_t i = 0; i < file.e_phnum; i++) {
		Elf64_Phdr part;
		size_t skip = i * sizeof part;
		if (file.e_phoff > length || skip > length - file.e_phoff ||
		    length - file.e_phoff - skip < sizeof part)
			return false;
		memcpy(&part, head + file.e_phoff + skip, sizeof part);
		if (part.p_type != PT_INTERP)
			continue;
		if (part.p_offset > length || part.p_filesz > length - part.p_offset)
			return false;
		const char *text = head + part.p_offset;
		return copy(text, strnlen(text, part.p_filesz), path, path_size);
	}
	return false;
}

bool interpreter_of(const char *head, size_t length, char *path, size_t path_size)
{
	if (length >= 2 && memcmp(head, "#!", 2) == 0)
		return script_interpreter(head, length, path, path_size);
	if (length >= SELFMAG && memcmp(head, ELFMAG, SELFMAG) == 0)
		return elf_interpreter(head, length, path, path_size);
	return false;
}
