// What stands in a shape for the literals of its text. For shape.ts, which writes them, and lists.ts, which folds them.

/** None of these bytes is in a shape otherwise, but within quotes. */
export const enum Mark {
	/** Begins every shape. No text begins so: a NUL ends it. */
	Shape = 0,
	/** Fits into 32 bits: the grammar wants such integers in places. */
	Integer = 1,
	/** Any other number. */
	Number = 2,
	String = 3,
	/** E'…' */
	Escaped = 4,
	Bits = 5,
	Hex = 6,
	/** $$…$$ */
	Dollars = 7,
	/** A literal or NULL where an expression of any kind may stand. */
	Any = 14,
	/** Two or more literals of a list. */
	List = 15,
	/** More groups like the one before. */
	More = 16,
}

/** Whether a byte of a shape stands for one literal as it is. */
export function isLiteral(byte: number): boolean {
	return byte > Mark.Shape && byte <= Mark.Dollars;
}
