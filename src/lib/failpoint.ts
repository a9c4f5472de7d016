import { writeSync } from "node:fs";

/**
 * Named places where a test can make the daemon die or fail, before and after every durable step.
 *
 * `AURAE_CRI_FAILPOINTS="runtime.pod.record.before=kill,netns.add.after=error"` arms them; `main.ts` passes the value in. Without it a
 * failpoint is one map look-up.
 */
const actions = new Map<string, "kill" | "error">();

/** Arms the failpoints of a comma separated `name=kill|error` list. */
export function armFailpoints(list: string): void {
  for (const item of list.split(",").filter((part) => part !== "")) {
    const [name, action] = item.split("=");
    if (name === undefined || (action !== "kill" && action !== "error"))
      throw new Error(`failpoint '${item}': want name=kill or name=error`);
    actions.set(name, action);
  }
}

/** Dies or throws when `name` is armed. */
export function failpoint(name: string): void {
  switch (actions.get(name)) {
    case undefined:
      return;
    case "kill":
      // Said without the log, which has no time left to write it: a test that arms several asks which of them it was.
      writeSync(2, `failpoint ${name}\n`);
      process.kill(process.pid, "SIGKILL");
      return;
    case "error":
      throw new Error(`failpoint ${name}`);
  }
}
