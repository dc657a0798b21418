/** Of what can be done to an instance. */
export const verbs = {
  stopHard: (name: string) => `${name} is cut off as if by a loss of power. What it has not written to its disks is lost.`,
  confirmResize: (name: string) => `${name} keeps its new size. There is no way back to the old one.`,
  revertResize: (name: string) => `${name} gets its old size back; if it runs, it is rebooted.`,
  unrescue: (name: string) => `${name} boots from its own disk again, and the disk that was made for the rescue goes.`,
  rebuild: 'What is on the disk that it boots from is lost, whether the new system boots or not. Take a snapshot before.',
  resize: 'The new size counts from the next start. Until it is confirmed, quota and host hold the larger of both.',
  rescue: 'It boots from a new disk of this image, with its own disks after it. Take another image than its own.',
  clone: 'A new instance with new disks that hold what those of this one hold now. Cards, labels and leases are its own.',
  resizedFrom: (type: string) => `It was ${type} before. Revert or confirm; without either it is confirmed`,
  lease: {
    title: 'Lease', stop: 'Stopped at', remove: 'Deleted at', hint: 'In your time zone. An empty time means never.', save: 'Save', none: 'Without a lease',
    now: (stop: string, remove: string) => [stop && `stopped ${stop}`, remove && `deleted ${remove}`].filter(Boolean).join(', '),
  },
  floating: {
    hint: 'Reachable from outside under this address, as far as its security groups allow.', which: 'Floating IP', card: 'Network card', fresh: 'A new one', pool: 'Address pool', give: 'Give it the address', name: 'Name of the new one',
    none: 'No network card can have one.',
  },
  forceDetach: {
    button: 'Detach by force', hint: (name: string) => `For a guest that does not let go of it. If ${name} still writes to it, what it has not written is lost.`,
    cutOff: 'Cut the guest off', cutOffHint: 'As if by a loss of power. Needed while its host is heard.',
  },
  protected: 'protected',
}
