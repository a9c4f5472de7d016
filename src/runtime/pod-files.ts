import { isIP } from "node:net";
import { invalid } from "./errors.ts";
import type { DnsConfig } from "./sandbox-config.ts";

// The contents of the files under /etc that a pod's containers share. Each value ends in a file that is read line by line and word by
// word, so anything that could end a word or a line is refused, by its real bytes, with the name of the CRI field.

/** What `sethostname` takes. */
const MAX_HOSTNAME_BYTES = 64;

/** /etc/hostname. Throws ERR_INVALID for a name that is empty, too long or not a host name. */
export function hostnameFile(hostname: string): string {
  return `${checkHostname(hostname)}\n`;
}

/** /etc/hosts for a pod whose client mounts none over it: loopback, and the pod's own name at each of its addresses. */
export function hostsFile(pod: { readonly hostname: string; readonly ips: readonly string[] }): string {
  const hostname = checkHostname(pod.hostname);
  const own = pod.ips.map((ip, index) => {
    if (isIP(ip) === 0) throw invalid(`ips[${index}]`, `${JSON.stringify(ip)} is not an IP address`);
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
  const servers = dns.servers.map((server, index) => {
    if (isIP(server) === 0) throw invalid(`dns_config.servers[${index}]`, `${JSON.stringify(server)} is not an IP address`);
    return `nameserver ${server}`;
  });
  const searches = dns.searches.map((domain, index) => checkWord(`dns_config.searches[${index}]`, domain, /^[A-Za-z0-9._-]+$/, "domain name"));
  const options = dns.options.map((option, index) => checkWord(`dns_config.options[${index}]`, option, /^[A-Za-z0-9._:-]+$/, "resolver option"));
  const lines = [
    ...(searches.length === 0 ? [] : [`search ${searches.join(" ")}`]),
    ...servers,
    ...(options.length === 0 ? [] : [`options ${options.join(" ")}`]),
  ];
  return lines.map((line) => `${line}\n`).join("");
}

function checkHostname(hostname: string): string {
  if (hostname === "") throw invalid("hostname", "is empty: give one, or use the host's network");
  if (hostname.length > MAX_HOSTNAME_BYTES) throw invalid("hostname", `is ${hostname.length} bytes long: at most ${MAX_HOSTNAME_BYTES} are possible`);
  return checkWord("hostname", hostname, /^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$/, "host name");
}

/** `$` in the patterns is the very end: none of them is multi-line. */
function checkWord(field: string, word: string, pattern: RegExp, noun: string): string {
  if (!pattern.test(word)) throw invalid(field, `${JSON.stringify(word)} is not a ${noun}`);
  return word;
}
