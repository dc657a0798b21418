import { Alert, Button, Code, Group, Modal, Stack } from '@mantine/core'
import { t } from '../strings'
import { Copy } from './Copy'
import type { Secret } from './secret'

/** A secret that is not shown again, until somebody says that it is kept. */
export function ShownOnce({ secret, close }: { secret: Secret | undefined; close: () => void }) {
  return (
    <Modal opened={secret !== undefined} onClose={close} title={t.secrets.title(secret?.field ?? 'key')} size="lg" closeOnClickOutside={false} closeOnEscape={false} withCloseButton={false}>
      {secret && (
        <Stack>
          <Alert color="orange" variant="light">{t.secrets.hint(secret.field)}</Alert>
          <Code block tabIndex={0} style={{ maxHeight: 260, overflow: 'auto', overflowWrap: 'anywhere', whiteSpace: 'pre-wrap' }}>{secret.text}</Code>
          <Group justify="space-between">
            <Group gap="xs">
              <Copy text={secret.text} what={t.secrets.title(secret.field)} />
              {secret.file && <Button variant="default" onClick={() => download(secret.file ?? '', secret.text)}>{t.secrets.download(secret.file)}</Button>}
            </Group>
            <Button onClick={close}>{t.secrets.kept}</Button>
          </Group>
        </Stack>
      )}
    </Modal>
  )
}

function download(name: string, text: string): void {
  const url = URL.createObjectURL(new Blob([text], { type: 'application/x-pem-file' }))
  const link = document.createElement('a')
  link.href = url
  link.download = name
  document.body.append(link)
  link.click()
  link.remove()
  // The browser reads it some time after the click.
  setTimeout(() => URL.revokeObjectURL(url), 60_000)
}
