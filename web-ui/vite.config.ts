import { readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import react from '@vitejs/plugin-react'
import { defineConfig, type Plugin } from 'vite'

const BUILT = 'built'
/** What a browser loads before it shows anything, compressed. */
const FIRST_LOAD_LIMIT_BYTES = 300_000

/** Empties the folder but for what Git keeps there, compresses what is built, and measures it. */
function embedded(): Plugin {
  return {
    name: 'embedded',
    apply: 'build',
    buildStart() {
      for (const name of readdirSync(BUILT)) {
        if (name !== '.gitignore') rmSync(join(BUILT, name), { recursive: true })
      }
    },
    writeBundle(_, bundle) {
      const first = new Set<string>()
      const load = (name: string) => {
        const chunk = bundle[name]
        if (chunk?.type !== 'chunk' || first.has(name)) return
        first.add(name)
        chunk.imports.forEach(load)
      }
      const page = readFileSync(join(BUILT, 'index.html'), 'utf8')
      for (const name of Object.keys(bundle)) if (page.includes(name)) load(name)
      let size = 0
      for (const item of Object.values(bundle)) {
        const file = join(BUILT, item.fileName)
        const compressed = gzipSync(readFileSync(file), { level: 9 })
        if (item.fileName.startsWith('assets/')) writeFileSync(`${file}.gz`, compressed)
        if (first.has(item.fileName)) size += compressed.length
      }
      console.log(`first load: ${Math.round(size / 1000)} kB of compressed script`)
      if (size === 0) throw new Error('first load: the page names no script')
      if (size > FIRST_LOAD_LIMIT_BYTES) {
        throw new Error(`first load: ${size} bytes of script, more than ${FIRST_LOAD_LIMIT_BYTES}`)
      }
    },
  }
}

const cloud = process.env.CUMULO_URL ?? 'http://127.0.0.1:8080'

export default defineConfig({
  plugins: [react(), embedded()],
  build: {
    outDir: BUILT,
    emptyOutDir: false,
    // The Content-Security-Policy allows no script in the page and no data: address but for pictures.
    assetsInlineLimit: 0,
    // Measured below, compressed.
    chunkSizeWarningLimit: 1000,
    modulePreload: { polyfill: false },
    // What is loaded first is two files: many small ones would compress worse.
    rolldownOptions: {
      output: {
        codeSplitting: {
          groups: [
            { name: 'libraries', tags: ['$initial'], test: /node_modules/, priority: 1 },
            { name: 'first', tags: ['$initial'] },
          ],
        },
      },
    },
  },
  server: { host: '127.0.0.1', port: 5173, proxy: { '/v1': { target: cloud, ws: true }, '/docs': cloud, '/openapi.json': cloud } },
})
