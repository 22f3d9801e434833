// One matrix-js-sdk client, driven over standard input and output: a JSON object per line, {id, op, ...arguments} in,
// {id, result} or {id, error} out. Everything that the library prints goes to standard error.
import readline from "node:readline";

for (const name of ["log", "info", "debug", "trace"]) console[name] = (...words) => console.error(...words);
const sdk = await import("matrix-js-sdk");

let client;
let recoveryKey;
const refusals = [];
const cryptoCallbacks = {
    getSecretStorageKey: async ({ keys }) => [Object.keys(keys)[0], recoveryKey],
    cacheSecretStorageKey: (_id, _info, key) => (recoveryKey = key),
};

const operations = {
    async register({ baseUrl, username, password, encrypts }) {
        const nobody = sdk.createClient({ baseUrl });
        await nobody.registerRequest({ username, password, auth: { type: "m.login.dummy" } });
        return operations.login({ baseUrl, username, password, encrypts });
    },

    async login({ baseUrl, username, password, encrypts }) {
        const nobody = sdk.createClient({ baseUrl });
        const identifier = { type: "m.id.user", user: username };
        const made = await nobody.loginRequest({ type: "m.login.password", identifier, password });
        client = sdk.createClient({
            baseUrl,
            userId: made.user_id,
            deviceId: made.device_id,
            accessToken: made.access_token,
            cryptoCallbacks,
        });
        if (encrypts) await client.initRustCrypto({ useIndexedDB: false });
        client.on("sync", (state, _, data) => state === "ERROR" && refusals.push(String(data?.error)));
        // Detached: the timeline then has nothing but what the server has sent.
        await client.startClient({ initialSyncLimit: 100, pendingEventOrdering: "detached", pollTimeout: 10_000 });
        await new Promise((resolve) => client.on("sync", (state) => state === "PREPARED" && resolve()));
        return made.user_id;
    },

    async createRoom({ options }) {
        return (await client.createRoom(options)).room_id;
    },

    async join({ roomId }) {
        await client.joinRoom(roomId);
    },

    async send({ roomId, text }) {
        return (await client.sendTextMessage(roomId, text)).event_id;
    },

    async edit({ roomId, eventId, text }) {
        const content = {
            "msgtype": "m.text",
            "body": `* ${text}`,
            "m.new_content": { msgtype: "m.text", body: text },
            "m.relates_to": { rel_type: "m.replace", event_id: eventId },
        };
        return (await client.sendMessage(roomId, content)).event_id;
    },

    async redact({ roomId, eventId, reason }) {
        return (await client.redactEvent(roomId, eventId, undefined, { reason })).event_id;
    },

    async typing({ roomId, typing }) {
        await client.sendTyping(roomId, typing, 20_000);
    },

    async read({ roomId, eventId }) {
        await client.sendReadReceipt(client.getRoom(roomId).findEventById(eventId));
    },

    async displayName({ name }) {
        await client.setDisplayName(name);
    },

    async leave({ roomId }) {
        await client.leave(roomId);
    },

    // Everything that a person at this client would see of a room; null before it is known.
    async look({ roomId }) {
        const room = client.getRoom(roomId);
        if (!room) return null;
        const members = {};
        for (const member of [...room.currentState.getMembers()]) {
            members[member.userId] = { membership: member.membership, name: member.name, typing: member.typing };
        }
        return {
            refusals,
            name: room.name,
            membership: room.getMyMembership(),
            members,
            readUpTo: Object.fromEntries(Object.keys(members).map((id) => [id, room.getEventReadUpTo(id, true)])),
            unread: room.getUnreadNotificationCount("total") ?? 0,
            timeline: room.getLiveTimeline().getEvents().map((event) => ({
                event_id: event.getId(),
                type: event.getType(),
                sender: event.getSender(),
                state_key: event.getStateKey() ?? null,
                content: event.getContent(),
                original: event.getOriginalContent(),
                redacted: event.isRedacted(),
                encrypted: event.isEncrypted(),
                sealed: event.isDecryptionFailure() || event.isBeingDecrypted(),
            })),
        };
    },

    async whoAmI() {
        return client.getDeviceId();
    },

    // Cross-signing keys, secret storage that holds them, and a backup of room keys; the key that opens all of it.
    async bootstrap() {
        const crypto = client.getCrypto();
        const authUploadDeviceSigningKeys = (upload) => upload(null);
        await crypto.bootstrapCrossSigning({ setupNewCrossSigning: true, authUploadDeviceSigningKeys });
        const key = await crypto.createRecoveryKeyFromPassphrase();
        await crypto.bootstrapSecretStorage({
            createSecretStorageKey: async () => key,
            setupNewSecretStorage: true,
            setupNewKeyBackup: true,
        });
        return Array.from(key.privateKey);
    },

    // What a further device does with that key: it signs itself, and fetches the backup.
    async restore({ key }) {
        recoveryKey = Uint8Array.from(key);
        const crypto = client.getCrypto();
        await crypto.bootstrapCrossSigning({ authUploadDeviceSigningKeys: (upload) => upload(null) });
        await crypto.loadSessionBackupPrivateKeyFromSecretStorage();
        await crypto.checkKeyBackupAndEnable();
        return (await crypto.restoreKeyBackup()).imported;
    },

    async backedUp() {
        return (await client.getCrypto().getKeyBackupInfo())?.count ?? 0;
    },

    async trust({ userId, deviceId }) {
        const crypto = client.getCrypto();
        await crypto.getUserDeviceInfo([userId], true);
        const status = await crypto.getDeviceVerificationStatus(userId, deviceId);
        return { known: !!status, signed: status?.signedByOwner ?? false, verified: status?.crossSigningVerified ?? false };
    },

    async logout() {
        await client.logout(true);
    },
};

for await (const line of readline.createInterface({ input: process.stdin })) {
    const { id, op, ...rest } = JSON.parse(line);
    operations[op](rest).then(
        (result) => process.stdout.write(JSON.stringify({ id, result: result ?? null }) + "\n"),
        (error) => process.stdout.write(JSON.stringify({ id, error: String(error?.stack ?? error) }) + "\n"),
    );
}
process.exit(0);
