// A third-party OpenID Connect provider for tests: npm's oidc-provider, on a free port, until stdin ends.
// It accepts every login name: `ada` has the email ada@example.com, which is verified unless the name begins with "unverified".
import { generateKeyPairSync } from 'node:crypto';
import { createServer } from 'node:http';
import Provider from 'oidc-provider';

const { redirectUris, claimsInIdToken, accessTokenSeconds } = JSON.parse(process.argv[2]);

function key(kid, type, options, alg) {
  const { privateKey } = generateKeyPairSync(type, options);
  return { ...privateKey.export({ format: 'jwk' }), kid, alg, use: 'sig' };
}

const client = (id, alg) => ({
  client_id: id,
  client_secret: `secret of ${id}: +/%&=`,
  redirect_uris: redirectUris,
  grant_types: ['authorization_code', 'refresh_token'],
  response_types: ['code'],
  id_token_signed_response_alg: alg,
});

const configuration = {
  clients: [client('rsa', 'RS256'), client('pss', 'PS256'), client('ec', 'ES256'), client('ed', 'EdDSA')],
  jwks: {
    keys: [
      key('rsa', 'rsa', { modulusLength: 2048 }, 'RS256'),
      key('pss', 'rsa', { modulusLength: 2048 }, 'PS256'),
      key('ec', 'ec', { namedCurve: 'P-256' }, 'ES256'),
      key('ed', 'ed25519', undefined, 'EdDSA'),
    ],
  },
  enabledJWA: { idTokenSigningAlgValues: ['RS256', 'PS256', 'ES256', 'EdDSA'] },
  cookies: { keys: ['for tests'] },
  scopes: ['openid', 'offline_access'],
  claims: { openid: ['sub'], email: ['email', 'email_verified'], profile: ['name'] },
  conformIdTokenClaims: !claimsInIdToken,
  pkce: { required: () => true },
  rotateRefreshToken: true,
  clockTolerance: 0,
  features: { revocation: { enabled: true } },
  ttl: { AccessToken: accessTokenSeconds, Interaction: 600, Session: 600, Grant: 600, IdToken: 600, RefreshToken: 600 },
  findAccount: (_, name) => ({
    accountId: name,
    claims: () => ({
      sub: name,
      email: `${name}@example.com`,
      email_verified: !name.startsWith('unverified'),
      name: `${name} of the provider`,
    }),
  }),
};

const server = createServer();
server.listen(0, '127.0.0.1', () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  server.on('request', new Provider(issuer, configuration).callback());
  console.log(issuer);
});
process.stdin.resume().on('end', () => process.exit());
