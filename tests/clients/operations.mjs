// What drives a client in a process of its own, over standard input and output: a JSON object per line, {id, op, ...arguments}
// in, {id, result} or {id, error} out. Everything that a library prints goes to standard error.
import readline from "node:readline";

for (const name of ["log", "info", "debug", "trace"]) console[name] = (...words) => console.error(...words);

// Carries out what it is asked, side by side, until standard input ends.
export async function serve(operations) {
    for await (const line of readline.createInterface({ input: process.stdin })) {
        const { id, op, ...rest } = JSON.parse(line);
        operations[op](rest).then(
            (result) => process.stdout.write(JSON.stringify({ id, result: result ?? null }) + "\n"),
            (error) => process.stdout.write(JSON.stringify({ id, error: String(error?.stack ?? error) }) + "\n"),
        );
    }
}
