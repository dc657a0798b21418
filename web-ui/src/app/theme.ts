import { createTheme, type MantineColorsTuple } from '@mantine/core'

const sky: MantineColorsTuple = [
  '#eaf4ff', '#d5e6fb', '#a7caf3', '#77adec', '#5095e6', '#3885e3', '#2a7de2', '#1c6bc9', '#105fb5', '#0052a0',
]

export const theme = createTheme({
  primaryColor: 'sky',
  primaryShade: { light: 7, dark: 6 },
  colors: { sky },
  autoContrast: true,
  defaultRadius: 'md',
  fontFamily: 'system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif',
  fontFamilyMonospace: 'ui-monospace, "SF Mono", Menlo, "DejaVu Sans Mono", monospace',
  headings: { fontWeight: '600' },
  cursorType: 'pointer',
})
