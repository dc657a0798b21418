/** Of drawings and maps. */
export const pictures = {
  topology: {
    title: 'Topology', teach: 'From the left: the outside, routers, networks, instances. Orange is what security groups open to everybody.',
    none: 'This project has no networks yet.', outside: 'Outside', filter: 'Filter instances', open: 'Open to everybody', behind: 'open, but without an address outside',
    left: (number: number) => `${number.toLocaleString('en')} more instances are not drawn; filter to see them.`,
    larger: 'Larger', smaller: 'Smaller', drawing: (project: string) => `Networks of ${project}`,
    goes: (names: string) => `connected with ${names}`,
  },
  capacity: {
    title: 'Capacity', none: 'No host yet.', room: 'Room for one more', type: 'Instance type',
    more: (number: number, type: string) => `${number.toLocaleString('en')} more of ${type} find room now.`,
    survives: 'If a host were lost', whole: 'Every instance would find another place, whichever single host were lost.',
    critical: (host: string, number: number) => `Without ${host}, ${number.toLocaleString('en')} would find no place.`,
    elsewhere: 'no zone', full: (share: number) => `${share} % promised`,
  },
  verdict: { hint: 'What each host has against this instance, as it is now.', takes: 'would take it', here: 'it is here', not: 'does not take it', host: 'Host', score: 'Score', why: 'Reasons' },
}
