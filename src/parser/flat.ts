// A text of its own. What is cut out of a long text keeps all of that alive, for as long as the piece is kept (JavaScriptCore
// makes a piece a reference). Whatever is kept longer than the statement that it comes from has to be made flat.

export function flat(text: string): string {
	const bytes = Buffer.from(text);
	return bytes.utf8Slice(0, bytes.length);
}
