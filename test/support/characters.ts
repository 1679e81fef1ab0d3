// Characters for random texts. fast-check's own `unit: "binary"` takes seconds to be made.

import fc from "fast-check";

/** Any that PostgreSQL stores: all but NUL and halves of pairs. */
export const character: fc.Arbitrary<string> = fc
	.oneof(fc.integer({ min: 1, max: 0xd7ff }), fc.integer({ min: 0xe000, max: 0x10ffff }))
	.map((code) => String.fromCodePoint(code));
