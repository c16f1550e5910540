/* What a file needs to run: another program, a certain machine. Pure. */
#include "interpreter.h"

#include <elf.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#if defined(__x86_64__)
#define MACHINE EM_X86_64
#elif defined(__aarch64__)
#define MACHINE EM_AARCH64
#endif

static const struct {
	unsigned number;
	const char *name, *name_little_endian;
} machines[] = {
	{EM_386, "i386", NULL},
	{EM_X86_64, "x86_64", NULL},
	{EM_ARM, "arm", NULL},
	{EM_AARCH64, "aarch64", NULL},
	{EM_RISCV, "riscv64", NULL},
	{EM_PPC64, "ppc64", "ppc64le"},
	{EM_S390, "s390x", NULL},
	{EM_MIPS, "mips", NULL},
	{258 /* EM_LOONGARCH, newer than some libcs */, "loongarch64", NULL},
};

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

static const char *machine_name(unsigned number, bool little_endian)
{
	for (size_t i = 0; i < sizeof machines / sizeof machines[0]; i++)
		if (machines[i].number == number)
			return little_endian && machines[i].name_little_endian != NULL ? machines[i].name_little_endian
										       : machines[i].name;
	return NULL;
}

const char *machine_of(const char *head, size_t length, char *text, size_t text_size)
{
	const size_t at = offsetof(Elf64_Ehdr, e_machine); /* the same for 32 bits */
	if (length < at + 2 || memcmp(head, ELFMAG, SELFMAG) != 0)
		return NULL;
	const unsigned char *bytes = (const unsigned char *)head + at;
	bool little_endian = head[EI_DATA] != ELFDATA2MSB;
	unsigned number = little_endian ? bytes[0] | bytes[1] << 8 : bytes[0] << 8 | bytes[1];
	const char *name = machine_name(number, little_endian);
	if (name != NULL)
		return name;
	snprintf(text, text_size, "ELF machine %u", number);
	return text;
}

const char *machine_here(void)
{
	return machine_name(MACHINE, true);
}
