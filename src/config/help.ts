import { defaultConfigPath } from "./load.ts";

export const helpText = `aurae-cri: a container runtime for Kubernetes (CRI v1)

Usage:
  aurae-cri serve [flags]            run the daemon until SIGTERM or SIGINT
  aurae-cri why POD [--json] [flags] where a pod runs and why, and how its start went; also when it is gone
  aurae-cri check [--full] [--json] [flags]
                                     what this node can do, and what to do about the rest
  aurae-cri config show [flags]      print the configuration that serve would run with
  aurae-cri config validate FILE     check a file; silent when it is sound
  aurae-cri config default           print every key with its default and meaning
  aurae-cri version                  print the version

POD is the id of a pod sandbox, a prefix of it, or NAMESPACE/NAME. check --full boots a guest, as the daemon does at its first start.

Flags of serve, why, check and config show:
  -c, --config FILE       TOML; ${defaultConfigPath} when it exists
      --root DIR          what survives a reboot (/var/lib/aurae-cri)
      --state DIR         what does not (/run/aurae-cri)
      --listen unix://PATH
                          CRI socket (unix:///run/aurae/aurae-cri.sock)

When something is wrong:
  is it answering?        crictl --runtime-endpoint unix:///run/aurae/aurae-cri.sock info
  what does it say?       journalctl -u aurae-cri, or its stderr; lines of level error need a person
  more detail             level = "debug" below [log] in the configuration, then restart: pods keep running
  why is my pod flat?     aurae-cri why POD
  can this node do it?    aurae-cri check --full
  "... is held by pid N"  another daemon works in the same --root or --state
  stop it                 SIGTERM drains, a second one leaves at once; either way pods keep running

Exit codes: 0 done as asked, 1 failed, 2 wrong command line or configuration. why: 1 when the pod is not known. check: 1 when a check failed;
warnings alone are 0.
`;
