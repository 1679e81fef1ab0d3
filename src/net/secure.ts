// Has a Stream go on with TLS, once both ends have said that they will (PostgreSQL docs, "SSL Session Encryption").

import type { Socket, SocketHandler } from "bun";
import { Stream } from "./stream.ts";
import { ALPN_LIST, type Secured, type TlsIdentity } from "./tls.ts";

/** Bun goes on telling of an encrypted connection's bytes on the wire, which nobody wants to hear of. */
const CIPHERTEXT: Stream = new Stream({} as Socket<Stream>);
CIPHERTEXT.closed = true;

/**
 * Goes on with TLS, as its server: nothing that is read from here on is taken for anything but TLS.
 * @param handlers as the socket has them
 * @param done as for `Stream.encrypt`
 */
export function acceptTls(
	stream: Stream,
	identity: TlsIdentity,
	handlers: SocketHandler<Stream>,
	done: (outcome: Secured | string) => void,
): void {
	const { certificate, key, authorities, minimum } = identity;
	const tls = {
		cert: certificate,
		key,
		...(authorities === null ? {} : { ca: authorities, requestCert: true }),
		// Whoever shows a wrong certificate is refused by `done`, whoever shows none by his login.
		rejectUnauthorized: false,
		minVersion: minimum,
		ALPNProtocols: ALPN_LIST,
	};
	stream.encrypt((socket) => {
		const [plain, encrypted] = socket.upgradeTLS<Stream>({ tls, data: stream, socket: handlers });
		plain.data = CIPHERTEXT;
		return encrypted;
	}, done);
}
