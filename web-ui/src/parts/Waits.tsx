import { Alert } from '@mantine/core'
import { t } from '../strings'

/** Says what something that is on its way waits for. */
export function Waits({ detail }: { detail: string | null | undefined }) {
  return detail && <Alert variant="light" color="gray" title={t.why} role="status">{detail}</Alert>
}
