/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Looks for functions among a kernel's types (BTF, Documentation/bpf/btf.rst). A type's number is its
 * place, types are of different lengths, and a kernel has 100,000 of them, which is slow in Python.
 */
#include "xp.h"

#include <string.h>

enum { BTF_INT = 1, BTF_ARRAY = 3, BTF_STRUCT, BTF_UNION, BTF_ENUM };
enum { BTF_FUNC = 12, BTF_FUNC_PROTO, BTF_VAR, BTF_DATASEC, BTF_DECL_TAG = 17, BTF_ENUM64 = 19 };

struct btf_type {
	uint32_t name; /* a place among the strings */
	uint32_t info; /* bits 24 to 28 the kind, 0 to 15 the number of members */
	uint32_t size_or_type;
};

/* How many bytes follow a type: once, or for each member. */
static size_t follows(uint32_t kind, uint32_t n_members)
{
	switch (kind) {
	case BTF_INT:
	case BTF_VAR:
	case BTF_DECL_TAG:
		return 4;
	case BTF_ARRAY:
		return 12;
	case BTF_STRUCT:
	case BTF_UNION:
	case BTF_DATASEC:
	case BTF_ENUM64:
		return (size_t)12 * n_members;
	case BTF_ENUM:
	case BTF_FUNC_PROTO:
		return (size_t)8 * n_members;
	default:
		return 0;
	}
}

/* Put the type numbers of the functions of these names, places among the strings, into `numbers`. */
void xp_btf_functions(const uint8_t *types, size_t size, const uint32_t *names, uint32_t n,
		      uint32_t *numbers)
{
	struct btf_type type;
	uint32_t number = 1;

	for (size_t at = 0; at < size && size - at >= sizeof(type); number++) {
		memcpy(&type, types + at, sizeof(type));
		uint32_t kind = type.info >> 24 & 31;

		for (uint32_t k = 0; kind == BTF_FUNC && k < n; k++)
			if (type.name == names[k])
				numbers[k] = number;
		at += sizeof(type) + follows(kind, type.info & 0xffff);
	}
}
