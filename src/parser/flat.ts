// A copy of a text that keeps nothing else alive. What is cut out of a long text keeps all of that alive (JavaScriptCore makes a
// piece a reference): whatever is kept longer than the statement that it comes from has to be made flat.

export function flat(text: string): string {
	const bytes = Buffer.from(text);
	return bytes.utf8Slice(0, bytes.length);
}
