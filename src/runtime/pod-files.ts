import { isIP } from "node:net";
import { invalid } from "./errors.ts";
import type { DnsConfig } from "./sandbox-config.ts";

// The contents of the files under /etc that a pod's containers share. Each value ends in a file that is read line by line and word by
// word, so anything that could end a word or a line is refused, by its real bytes, with the name of the CRI field.

/** What `sethostname` takes. */
const MAX_HOSTNAME_BYTES = 64;

/** What is wrong with a value of the request, and where in it. */
export interface FieldProblem {
  /** Relative to the message that was checked: `servers[0]`. */
  readonly field: string;
  readonly message: string;
}

/** What is wrong with a host name; undefined for a good one. An empty one is not good. */
export function hostnameProblem(hostname: string): string | undefined {
  if (hostname === "") return "is empty: give one, or use the host's network";
  if (hostname.length > MAX_HOSTNAME_BYTES) return `is ${hostname.length} characters long: at most ${MAX_HOSTNAME_BYTES} are possible`;
  return wordProblem(hostname, /^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$/, "host name");
}

/** The first thing wrong with a DNSConfig; undefined for a good one. */
export function dnsProblem(dns: DnsConfig): FieldProblem | undefined {
  const problems = [
    ...dns.servers.map((server, index) => ({ field: `servers[${index}]`, message: addressProblem(server) })),
    ...dns.searches.map((domain, index) => ({
      field: `searches[${index}]`,
      message: wordProblem(domain, /^[A-Za-z0-9._-]+$/, "domain name"),
    })),
    ...dns.options.map((option, index) => ({
      field: `options[${index}]`,
      message: wordProblem(option, /^[A-Za-z0-9._:-]+$/, "resolver option"),
    })),
  ];
  return problems.find((problem): problem is FieldProblem => problem.message !== undefined);
}

/** /etc/hostname. Throws ERR_INVALID for a name that is empty, too long or not a host name. */
export function hostnameFile(hostname: string): string {
  return `${checkHostname(hostname)}\n`;
}

/** /etc/hosts for a pod whose client mounts none over it: loopback, and the pod's own name at each of its addresses. */
export function hostsFile(pod: { readonly hostname: string; readonly ips: readonly string[] }): string {
  const hostname = checkHostname(pod.hostname);
  const own = pod.ips.map((ip, index) => {
    const problem = addressProblem(ip);
    if (problem !== undefined) throw invalid(`ips[${index}]`, problem);
    return `${ip}\t${hostname}`;
  });
  return [
    "127.0.0.1\tlocalhost",
    "::1\tlocalhost ip6-localhost ip6-loopback",
    "fe00::0\tip6-localnet",
    "ff00::0\tip6-mcastprefix",
    "ff02::1\tip6-allnodes",
    "ff02::2\tip6-allrouters",
    ...own,
    "",
  ].join("\n");
}

/** /etc/resolv.conf. Without a DNSConfig it is the host's file as it is; an empty DNSConfig is an empty file. */
export function resolvConfFile(dns: DnsConfig | undefined, hostFile: string): string {
  if (dns === undefined) return hostFile;
  const problem = dnsProblem(dns);
  if (problem !== undefined) throw invalid(`dns_config.${problem.field}`, problem.message);
  const lines = [
    ...(dns.searches.length === 0 ? [] : [`search ${dns.searches.join(" ")}`]),
    ...dns.servers.map((server) => `nameserver ${server}`),
    ...(dns.options.length === 0 ? [] : [`options ${dns.options.join(" ")}`]),
  ];
  return lines.map((line) => `${line}\n`).join("");
}

function checkHostname(hostname: string): string {
  const problem = hostnameProblem(hostname);
  if (problem !== undefined) throw invalid("hostname", problem);
  return hostname;
}

function addressProblem(address: string): string | undefined {
  return isIP(address) === 0 ? `${JSON.stringify(address)} is not an IP address` : undefined;
}

/** `$` in the patterns is the very end: none of them is multi-line. */
function wordProblem(word: string, pattern: RegExp, noun: string): string | undefined {
  return pattern.test(word) ? undefined : `${JSON.stringify(word)} is not a ${noun}`;
}
