/* SPDX-License-Identifier: Apache-2.0 */
/* Run the driver on files, where there is no libFuzzer: PROGRAM FILE... */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define LARGEST (1 << 20)

int main(int argc, char **argv)
{
	static uint8_t read[LARGEST];

	LLVMFuzzerInitialize(&argc, &argv);
	for (int i = 1; i < argc; i++) {
		FILE *file = fopen(argv[i], "rb");
		uint8_t *exact;
		size_t n;

		if (!file) {
			perror(argv[i]);
			return 2;
		}
		fprintf(stderr, "%s\n", argv[i]); /* the last one told is the one that failed */
		n = fread(read, 1, sizeof(read), file);
		fclose(file);
		exact = malloc(n + !n);
		for (size_t k = 0; k < n; k++)
			exact[k] = read[k];
		LLVMFuzzerTestOneInput(exact, n);
		free(exact);
	}
	printf("%d inputs, nothing found\n", argc - 1);
	return 0;
}
