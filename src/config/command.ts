import { type ParseArgsOptionsConfig, parseArgs } from "node:util";
import { messageOf } from "../lib/coded-error.ts";
import { usageError } from "./errors.ts";
import type { ConfigFlags } from "./load.ts";
import { didYouMean } from "./nearest.ts";

/** What the command line asks for. */
export type Command =
  | { readonly kind: "serve"; readonly flags: ConfigFlags }
  | { readonly kind: "why"; readonly pod: string; readonly json: boolean; readonly flags: ConfigFlags }
  | { readonly kind: "check"; readonly full: boolean; readonly json: boolean; readonly flags: ConfigFlags }
  | { readonly kind: "config-show"; readonly flags: ConfigFlags }
  | { readonly kind: "config-validate"; readonly path: string }
  | { readonly kind: "config-default" }
  | { readonly kind: "version" }
  | { readonly kind: "help" };

const configFlags = {
  config: { type: "string", short: "c" },
  root: { type: "string" },
  state: { type: "string" },
  listen: { type: "string" },
} as const satisfies ParseArgsOptionsConfig;

const whyFlags = { ...configFlags, json: { type: "boolean" } } as const satisfies ParseArgsOptionsConfig;
const checkFlags = { ...whyFlags, full: { type: "boolean" } } as const satisfies ParseArgsOptionsConfig;

/** Parses the arguments after the program's name. Throws `ERR_USAGE`: anything unknown is an error. */
export function parseCommand(argv: readonly string[]): Command {
  if (argv.length === 0) throw usageError("no command given");
  if (argv.includes("--help") || argv.includes("-h") || argv[0] === "help") return { kind: "help" };
  const [verb, ...rest] = argv;
  switch (verb) {
    case "serve":
      return { kind: "serve", flags: parseFlags("serve", rest) };
    case "why":
      return parseWhy(rest);
    case "check":
      return parseCheck(rest);
    case "version":
    case "--version":
      expectNothing("version", rest);
      return { kind: "version" };
    case "config":
      return parseConfigCommand(rest);
    default:
      throw usageError(`unknown command '${verb}'${didYouMean(verb ?? "", ["serve", "why", "check", "version", "config", "help"])}`);
  }
}

function parseConfigCommand([verb, ...rest]: readonly string[]): Command {
  switch (verb) {
    case "default":
      expectNothing("config default", rest);
      return { kind: "config-default" };
    case "show":
      return { kind: "config-show", flags: parseFlags("config show", rest) };
    case "validate": {
      const [path, ...more] = rest;
      if (path === undefined || path.startsWith("-")) throw usageError("config validate: name one file");
      expectNothing("config validate", more);
      return { kind: "config-validate", path };
    }
    case undefined:
      throw usageError("config: say default, show or validate");
    default:
      throw usageError(`unknown command 'config ${verb}'${didYouMean(verb, ["default", "show", "validate"])}`);
  }
}

function parseWhy(args: readonly string[]): Command {
  const { values, positionals } = parse("why", args, whyFlags, true);
  const [pod, ...more] = positionals;
  if (pod === undefined || pod === "") throw usageError("why: name one pod, by its id, a prefix of it, or NAMESPACE/NAME");
  expectNothing("why", more);
  const { json = false, ...flags } = values;
  return { kind: "why", pod, json, flags };
}

function parseCheck(args: readonly string[]): Command {
  const { json = false, full = false, ...flags } = parse("check", args, checkFlags, false).values;
  return { kind: "check", full, json, flags };
}

function parseFlags(command: string, args: readonly string[]): ConfigFlags {
  return parse(command, args, configFlags, false).values;
}

function parse<const Options extends ParseArgsOptionsConfig>(
  command: string,
  args: readonly string[],
  options: Options,
  allowPositionals: boolean,
) {
  try {
    return parseArgs({ args: [...args], options, strict: true, allowPositionals });
  } catch (error) {
    const flag = args.find((arg) => arg.startsWith("--"))?.replace(/=.*/, "");
    const known = Object.keys(options).map((name) => `--${name}`);
    const hint = flag === undefined || known.includes(flag) ? "" : didYouMean(flag, known);
    // The first sentence says which argument; the rest is about quoting.
    throw usageError(`${command}: ${messageOf(error).split(/\.?(?: |\n)(?=[A-Z])/)[0]}${hint}`);
  }
}

function expectNothing(command: string, args: readonly string[]): void {
  if (args.length > 0) throw usageError(`${command}: unexpected '${args[0]}'`);
}
