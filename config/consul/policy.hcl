# What quorate may do in Consul, and nothing else: the policy of the token that coordination.consul.token_file holds.
#
#   consul acl policy create -name quorate -rules @policy.hcl
#   consul acl token create -description "quorate on pg1" -policy-name quorate
#
# One token for each node is best: a lost one is then withdrawn alone. Another `prefix` in quorate.yaml is another folder here.

# Leases, votes, heartbeats, intents and history of all groups.
key_prefix "quorate/" {
  policy = "write"
}

# Each agent keeps a session per group, and ends those that its own earlier lives left behind. Sessions belong to the Consul node whose
# address the agent asked, so name these nodes here instead of "" to give less: session "pg1" { policy = "write" }.
session_prefix "" {
  policy = "write"
}

# Only for `status`: how long Consul's own elections take (raft_multiplier). Without it nothing is said of that.
agent_prefix "" {
  policy = "read"
}
