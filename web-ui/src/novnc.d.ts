/** What the console uses of noVNC, which has no types of its own. */
declare module '@novnc/novnc' {
  export default class RFB extends EventTarget {
    constructor(target: HTMLElement, channel: WebSocket, options?: { shared?: boolean })
    background: string
    scaleViewport: boolean
    viewOnly: boolean
    focus(): void
    disconnect(): void
    sendCtrlAltDel(): void
    /** Without `down`: pressed and let go of. */
    sendKey(keysym: number, code: string, down?: boolean): void
  }
}
