import { createTheme, type CSSVariablesResolver, type MantineColorsTuple } from '@mantine/core'
import { t } from '../strings'

const sky: MantineColorsTuple = [
  '#eaf4ff', '#d5e6fb', '#a7caf3', '#77adec', '#5095e6', '#3885e3', '#2a7de2', '#1c6bc9', '#105fb5', '#0052a0',
]

export const theme = createTheme({
  primaryColor: 'sky',
  primaryShade: { light: 7, dark: 7 },
  colors: { sky },
  autoContrast: true,
  defaultRadius: 'md',
  fontFamily: 'system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif',
  fontFamilyMonospace: 'ui-monospace, "SF Mono", Menlo, "DejaVu Sans Mono", monospace',
  headings: { fontWeight: '600' },
  cursorType: 'pointer',
  components: {
    // Told from the text around it by more than its colour.
    Anchor: { defaultProps: { underline: 'always' } },
    Modal: { defaultProps: { closeButtonProps: { 'aria-label': t.close } } },
    Notification: { defaultProps: { closeButtonProps: { 'aria-label': t.close } } },
  },
})

/** Quiet text still has the contrast that WCAG asks for (4.5 to 1). */
export const variables: CSSVariablesResolver = () => ({
  variables: {},
  light: {
    '--mantine-color-dimmed': '#59626b', '--mantine-color-placeholder': '#69727b', '--mantine-color-error': '#c92a2a',
    '--mantine-color-teal-light-color': '#075e45', '--mantine-color-orange-light-color': '#a13a00', '--mantine-color-gray-light-color': '#495057',
    '--mantine-color-red-light-color': '#b02121', '--mantine-color-red-text': '#c92a2a', '--mantine-color-sky-light-color': '#0b5299',
  },
  dark: { '--mantine-color-anchor': '#77adec', '--mantine-color-dimmed': '#a6adb4', '--mantine-color-placeholder': '#8f969d' },
})
