/** Of what an instance uses, and of what its guest says. Loaded with those pages only. */
export const insight = {
  span: 'Time span',
  spans: { '900': '15 minutes', '3600': '1 hour', '10800': '3 hours' } as Record<string, string>,
  table: 'As a table',
  tableOf: (name: string) => `What ${name} used`,
  step: (seconds: number) => `One value for every ${seconds < 120 ? `${seconds} s` : `${Math.round(seconds / 60)} min`}; in your time zone.`,
  zone: (zone: string) => `Time (${zone})`,
  charts: {
    cpu: 'Processors', memory: 'Memory', disk: 'Disks', requests: 'Disk requests', network: 'Network', packets: 'Packets',
  },
  lines: {
    cpu_percent: 'of all vCPUs', memory_used_bytes: 'used', memory_resident_bytes: 'taken of the host', memory_size_bytes: 'given',
    read_bytes_per_second: 'read', written_bytes_per_second: 'written', read_requests_per_second: 'read', write_requests_per_second: 'written',
    received_bytes_per_second: 'received', sent_bytes_per_second: 'sent', received_packets_per_second: 'received', sent_packets_per_second: 'sent',
  },
  summary: (line: string, now: string, average: string, most: string, at: string) => `${line}: now ${now}, on average ${average}, at most ${most} at ${at}`,
  unknown: 'Not known in this time.',
  noBalloon: 'The guest does not say how much memory it uses: that needs the driver virtio_balloon in it.',
  empty: {
    title: 'Nothing was measured in this time',
    running: 'Hosts measure every 15 seconds. The first values appear half a minute after the start, here, by themselves.',
    stopped: 'The instance does not run, so it uses nothing. Start it, and what it uses appears here.',
    part: 'Hosts measure every 15 seconds while an instance runs. The first values appear half a minute after its start, here, by themselves.',
  },
  unattached: 'No instance has it. When a running one does, what passes through it appears here.',
  guest: {
    title: 'The guest says',
    os: 'System', kernel: 'Kernel', hostname: 'Host name', clock: 'Clock', addresses: 'Addresses', filesystems: 'File systems',
    unchecked: 'Nothing of it is checked.',
    ahead: (seconds: string) => `${seconds} ahead of its host’s`,
    behind: (seconds: string) => `${seconds} behind its host’s`,
    right: 'as its host’s',
    of: (used: string, total: string) => `${used} of ${total}`,
    install: 'For its addresses, system and file systems to appear here, install qemu-guest-agent in the guest and start it:',
    command: 'apt install qemu-guest-agent && systemctl enable --now qemu-guest-agent',
    states: {
      answering: '', no_agent: 'Nobody answers in the guest.', not_answering: 'The agent in the guest does not answer.',
      not_running: 'The instance does not run.', not_asked: 'Its host has not asked yet; it does soon after the start.',
    },
  },
}
